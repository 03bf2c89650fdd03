"""The local part of a reduction: fold the parts of a chunk in tree order, divide, take squares.

Three passes over a chunk would each fetch it from memory. So the work goes tile by tile: a tile is summed,
divided and squared while it is in the cache, and partial sums live in buffers of its size.

Thread rule: each object in one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from hpresil.comm.arithmetic import BLOCK, Doubles, Vector, add, copy, divide, scratch, square_sums, vector
from hpresil.comm.schedule import Chunk, Schedule
from hpresil.elastic.slots import Merge, Node

TILE_BLOCKS = 8  # 512 KiB of fp32


def tiles(blocks: int) -> Iterator[tuple[int, slice]]:
    """Yield the first block of each tile of ``blocks`` blocks, and the tile's elements."""
    for start in range(0, blocks, TILE_BLOCKS):
        yield start, slice(start * BLOCK, min(start + TILE_BLOCKS, blocks) * BLOCK)


class Finishing:
    """Divides what was summed and takes its squares; use it inside `plain_arithmetic`.

    Attributes:
        divisor: What the counted blocks are divided by.
        squares: Sums of squares of the counted blocks, all flat tensors one after the other.
    """

    def __init__(self, norm_blocks: Sequence[int]) -> None:
        self.divisor = 1.0
        self.squares: Doubles = np.zeros(sum(norm_blocks))
        self._norm_blocks = norm_blocks

    def places(self, flat: int, first: int, last: int) -> slice:
        """Return where the squares of these blocks of a flat tensor are; empty if they do not count."""
        before, counted = sum(self._norm_blocks[:flat]), self._norm_blocks[flat]
        return slice(before + min(first, counted), before + min(last, counted))

    def finish(self, flat: int, first: int, values: Vector) -> None:
        """Finish the blocks from ``first`` on, which are ``values``; those that do not count stay."""
        squares = self.squares[self.places(flat, first, first + len(values) // BLOCK)]
        if len(squares):
            counted = values[: len(squares) * BLOCK]
            if self.divisor != 1.0:
                divide(counted, self.divisor)
            square_sums(counted, squares)


class Tree:
    """The additions that make one tree node, with room for the sums between."""

    def __init__(self, merges: Sequence[Merge], goal: Node) -> None:
        made = {merge.parent for merge in merges}
        self.leaves = [node for merge in merges for node in merge[:2] if node not in made] or [goal]
        self._merges, self._goal = merges, goal
        self._rooms: dict[tuple[str, Node], Vector] = {}

    def add_up(self, terms: dict[Node, Vector], result: Vector) -> None:
        """Compute the goal into ``result`` from the ``terms``, one for each leaf; elementwise."""
        for left, right, parent in self._merges:
            terms[parent] = result if parent == self._goal else self._room(parent, result)
            add(terms[parent], terms[left], terms[right])
        if not self._merges:
            copy(result, terms[self._goal])

    def _room(self, node: Node, like: Vector) -> Vector:
        key = (str(like.dtype), node)
        if key not in self._rooms:
            self._rooms[key] = scratch(TILE_BLOCKS * BLOCK, like)
        return self._rooms[key][: len(like)]


class Folding:
    """Folds chunks of the gradient on one rank; use it inside `plain_arithmetic`.

    Args:
        plan: The exchange.
        rank: Whose part in it.
        visible: For each node of the rank's home, its flat tensors, like ``out``; they are only read.
        out: Flat tensors for the result: 1-D, contiguous, float32 or float64, of whole blocks.
        finishing: What is done to the result.
    """

    def __init__(
        self,
        plan: Schedule,
        rank: int,
        visible: Mapping[Node, list[torch.Tensor]],
        out: list[torch.Tensor],
        finishing: Finishing,
    ) -> None:
        way = plan.ways[rank]
        self._finishing = finishing
        self._visible = {node: [vector(flat) for flat in flats] for node, flats in visible.items()}
        self._out = [vector(flat) for flat in out]
        self._root = Tree(way.merges, plan.root)
        self._parts = {node: Tree(merges, node) for node, merges in way.contributed.items()}

    def fold(self, chunk: Chunk, arrived: dict[Node, torch.Tensor]) -> None:
        """Fold a chunk of ours into ``out``; ``arrived`` is what other homes contribute to it."""
        given = {node: vector(part) for node, part in arrived.items()}
        for start, within in tiles(chunk.blocks):
            place = slice(chunk.elements.start + within.start, chunk.elements.start + within.stop)
            terms = {
                node: given[node][within] if node in given else self._visible[node][chunk.flat][place]
                for node in self._root.leaves
            }
            result = self._out[chunk.flat][place]
            self._root.add_up(terms, result)
            self._finishing.finish(chunk.flat, chunk.first_block + start, result)

    def part(self, chunk: Chunk, node: Node, into: torch.Tensor) -> None:
        """Write what our home contributes to a chunk elsewhere, as one of its nodes, ``into`` a buffer.

        The buffer is of the chunk's length and of the type of its flat tensor.
        """
        tree, result = self._parts[node], vector(into)
        for _, within in tiles(chunk.blocks):
            place = slice(chunk.elements.start + within.start, chunk.elements.start + within.stop)
            terms = {leaf: self._visible[leaf][chunk.flat][place] for leaf in tree.leaves}
            tree.add_up(terms, result[within])
