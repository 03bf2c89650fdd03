"""The local part of a reduction: fold the parts of a chunk in tree order, divide, take squares.

Three passes over a chunk would each fetch it from memory. So the work goes tile by tile: a tile is
summed, divided and squared while it is in the cache, and partial sums live in buffers of its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hpresil.comm.arithmetic import BLOCK, Doubles, Vector, add, copy, divide, scratch, square_sums, vector
from hpresil.comm.schedule import Chunk, Schedule
from hpresil.elastic.slots import Node

TILE_BLOCKS = 8  # 512 KiB of fp32


class Folding:
    """Folds the chunks of one owner into ``out``; use it inside `plain_arithmetic`.

    Attributes:
        divisor: What the counted blocks are divided by.
        squares: Sums of squares of the counted blocks, all flat tensors one after the other.
    """

    def __init__(
        self,
        plan: Schedule,
        own: dict[Node, list[torch.Tensor]],
        out: list[torch.Tensor],
        norm_blocks: Sequence[int],
    ) -> None:
        self.divisor = 1.0
        self.squares: Doubles = np.zeros(sum(norm_blocks))
        self._plan, self._norm_blocks = plan, norm_blocks
        self._own = {node: [vector(flat) for flat in flats] for node, flats in own.items()}
        self._out = [vector(flat) for flat in out]
        self._partial: dict[tuple[int, Node], Vector] = {}

    def fold(self, chunk: Chunk, parts: dict[Node, torch.Tensor]) -> None:
        """Fold one chunk; ``parts`` is what others contribute to it."""
        given = {node: vector(part) for node, part in parts.items()}
        for start in range(0, chunk.blocks, TILE_BLOCKS):
            blocks = min(TILE_BLOCKS, chunk.blocks - start)
            first = chunk.first_block + start
            place = slice(first * BLOCK, (first + blocks) * BLOCK)
            within = slice(start * BLOCK, (start + blocks) * BLOCK)
            terms = {node: part[within] for node, part in given.items()}
            terms.update((node, flats[chunk.flat][place]) for node, flats in self._own.items())
            self._add_up(chunk.flat, terms, self._out[chunk.flat][place])
            self._finish(chunk.flat, first, blocks)

    def places(self, flat: int, first: int, last: int) -> slice:
        """Return where the squares of these blocks of a flat tensor are; empty if they do not count."""
        before, counted = sum(self._norm_blocks[:flat]), self._norm_blocks[flat]
        return slice(before + min(first, counted), before + min(last, counted))

    def _add_up(self, flat: int, terms: dict[Node, Vector], result: Vector) -> None:
        for left, right, parent in self._plan.merges:
            terms[parent] = result if parent == self._plan.root else self._room(flat, parent, result)
            add(terms[parent], terms[left], terms[right])
        if not self._plan.merges:
            copy(result, terms[self._plan.root])

    def _finish(self, flat: int, first: int, blocks: int) -> None:
        squares = self.squares[self.places(flat, first, first + blocks)]
        if len(squares):
            counted = self._out[flat][first * BLOCK : (first + len(squares)) * BLOCK]
            if self.divisor != 1.0:
                divide(counted, self.divisor)
            square_sums(counted, squares)

    def _room(self, flat: int, node: Node, like: Vector) -> Vector:
        key = (flat, node)
        if key not in self._partial:
            self._partial[key] = scratch(TILE_BLOCKS * BLOCK, like)
        return self._partial[key][: len(like)]
