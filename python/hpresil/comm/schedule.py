"""Who sends which part of which tree node to whom: equal on all ranks, from what all ranks know.

Elements are counted in blocks. Rank r owns blocks ``r*NB//W`` up to ``(r+1)*NB//W`` of each flat
tensor; what a rank owns is cut into chunks, so that a chunk is folded while the next one travels.
Chunks never change a bit: the sums are elementwise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from hpresil.comm.arithmetic import BLOCK
from hpresil.elastic.slots import Merge, Node, cover, merges, root


class Chunk(NamedTuple):
    """A run of whole blocks of one flat tensor; ``number`` is unique over all owners."""

    number: int
    flat: int
    first_block: int
    blocks: int

    @property
    def elements(self) -> slice:
        """The place of the chunk in its flat tensor."""
        return slice(self.first_block * BLOCK, (self.first_block + self.blocks) * BLOCK)


class Schedule:
    """The exchange of one step.

    Attributes:
        nodes: By rank, the tree nodes it contributes.
        merges: The additions that make the root from all nodes.
        root: The node that is the result.
        chunks: By owner, its chunks in the order in which they are folded.
        chunk_blocks: Blocks in the largest chunk.
    """

    def __init__(
        self, slots: int, carried: tuple[tuple[int, ...], ...], blocks: tuple[int, ...], chunk_blocks: int
    ) -> None:
        self.nodes = [cover(slots, own) for own in carried]
        given = [node for own in self.nodes for node in own]
        self.merges: list[Merge] = merges(slots, given)
        self.root: Node = root(slots)
        self.chunk_blocks = chunk_blocks
        self._numbers = {node: number for number, node in enumerate(sorted(given))}
        self.chunks: list[list[Chunk]] = []
        total = 0
        for rank in range(len(carried)):
            own: list[Chunk] = []
            for flat, count in enumerate(blocks):
                first, last = owned(count, rank, len(carried))
                for start in range(first, last, chunk_blocks):
                    own.append(Chunk(total + len(own), flat, start, min(chunk_blocks, last - start)))
            total += len(own)
            self.chunks.append(own)
        self._total = total

    def part_tag(self, chunk: Chunk, node: Node) -> int:
        """Return the tag of a node's part on its way to the owner of ``chunk``."""
        return chunk.number * len(self._numbers) + self._numbers[node]

    def result_tag(self, chunk: Chunk) -> int:
        """Return the tag of a folded chunk on its way to everybody."""
        return self._total * len(self._numbers) + chunk.number


def owned(blocks: int, rank: int, size: int) -> tuple[int, int]:
    """Return the first block ``rank`` owns, and the one after its last."""
    return rank * blocks // size, (rank + 1) * blocks // size


@lru_cache(maxsize=8)
def schedule(
    slots: int, carried: tuple[tuple[int, ...], ...], blocks: tuple[int, ...], chunk_blocks: int
) -> Schedule:
    """Return the exchange for these inputs; steps without a change of members share one."""
    return Schedule(slots, carried, blocks, chunk_blocks)
