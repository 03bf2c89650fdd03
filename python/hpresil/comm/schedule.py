"""Who sends which part of which tree node to whom: equal on all ranks, from what all ranks know.

Elements are counted in blocks. Rank r *owns* blocks ``r*NB//W`` up to ``(r+1)*NB//W`` of each flat tensor: it
adds them up to the root. What a rank owns is cut into chunks, so that a chunk is folded while the next one
travels. Chunks never change a bit: the sums are elementwise.

Ranks that can read each other's memory are a *home*, named by its lowest rank. Between homes a byte crosses
once, not once for every rank: for each owner elsewhere one rank of the home, its *partner*, adds up what the
home has below each of the home's own tree nodes, sends that, and takes in the result for the others to
read. Homes of one rank each are the exchange by messages alone, a single home is the one without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from hpresil.comm.arithmetic import BLOCK
from hpresil.elastic.slots import Merge, Node, cover, merges, root, span


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


class Way(NamedTuple):
    """What one rank does in the exchange.

    Attributes:
        mates: The other ranks of its home.
        visible: The tree nodes it can read, of all ranks of its home.
        contributed: For each tree node its home sends, the additions that make it; none if a rank has it.
        arriving: What is sent to it for each chunk it owns: (rank, tree node).
        served: The owners elsewhere whose partner it is.
        partners: By other home, the partner of this rank.
        merges: The additions that make the root from ``visible`` and what arrives.
    """

    mates: list[int]
    visible: list[Node]
    contributed: dict[Node, list[Merge]]
    arriving: list[tuple[int, Node]]
    served: list[int]
    partners: list[int]
    merges: list[Merge]


class Schedule:
    """The exchange of one step.

    Attributes:
        root: The node that is the result.
        chunks: By owner, its chunks in the order in which they are folded.
        chunk_blocks: Blocks in the largest chunk.
        ways: By rank, what it does.
    """

    def __init__(
        self,
        slots: int,
        carried: tuple[tuple[int, ...], ...],
        blocks: tuple[int, ...],
        chunk_blocks: int,
        homes: tuple[int, ...],
    ) -> None:
        self.root: Node = root(slots)
        self.chunk_blocks = chunk_blocks
        self._slots, self._homes = slots, homes
        self._nodes = [cover(slots, own) for own in carried]
        self._ranks = {home: [r for r, its in enumerate(homes) if its == home] for home in sorted(set(homes))}
        self._sent = {
            home: cover(slots, [slot for rank in ranks for slot in carried[rank]])
            for home, ranks in self._ranks.items()
        }
        nodes = sorted(node for sent in self._sent.values() for node in sent)
        self._numbers = {node: number for number, node in enumerate(nodes)}
        self.chunks: list[list[Chunk]] = []
        for rank in range(len(carried)):
            first = sum(map(len, self.chunks))
            self.chunks.append(_cut(first, [owned(n, rank, len(carried)) for n in blocks], chunk_blocks))
        self._total = sum(map(len, self.chunks))
        self.ways = [self._way(rank) for rank in range(len(carried))]

    def part_tag(self, chunk: Chunk, node: Node) -> int:
        """Return the tag of a node's part on its way to the owner of ``chunk``."""
        return chunk.number * len(self._numbers) + self._numbers[node]

    def result_tag(self, chunk: Chunk) -> int:
        """Return the tag of a folded chunk on its way to another home."""
        return self._total * len(self._numbers) + chunk.number

    def _partner(self, home: int, owner: int) -> int:
        """Return which rank of ``home`` deals with an owner elsewhere; they take turns."""
        elsewhere = [rank for rank, its in enumerate(self._homes) if its != home]
        ranks = self._ranks[home]
        return ranks[elsewhere.index(owner) % len(ranks)]

    def _way(self, rank: int) -> Way:
        mine = self._homes[rank]
        visible = [node for mate in self._ranks[mine] for node in self._nodes[mate]]
        away = [home for home in self._ranks if home != mine]
        arriving = [(self._partner(home, rank), node) for home in away for node in self._sent[home]]
        elsewhere = [owner for owner, home in enumerate(self._homes) if home != mine]
        sent = {node: self._below(node, visible) for node in self._sent[mine]}
        return Way(
            mates=[mate for mate in self._ranks[mine] if mate != rank],
            visible=visible,
            contributed={node: merges(self._slots, below, node) for node, below in sent.items()},
            arriving=arriving,
            served=[owner for owner in elsewhere if self._partner(mine, owner) == rank],
            partners=[self._partner(home, rank) for home in away],
            merges=merges(self._slots, [*visible, *(node for _, node in arriving)]),
        )

    def _below(self, node: Node, visible: Sequence[Node]) -> list[Node]:
        return [v for v in visible if span(v, self._slots)[0] in span(node, self._slots)]


def _cut(first: int, owned_blocks: Sequence[tuple[int, int]], chunk_blocks: int) -> list[Chunk]:
    chunks: list[Chunk] = []
    for flat, (begin, end) in enumerate(owned_blocks):
        for start in range(begin, end, chunk_blocks):
            chunks.append(Chunk(first + len(chunks), flat, start, min(chunk_blocks, end - start)))
    return chunks


def owned(blocks: int, rank: int, size: int) -> tuple[int, int]:
    """Return the first block ``rank`` owns, and the one after its last."""
    return rank * blocks // size, (rank + 1) * blocks // size


@lru_cache(maxsize=8)
def schedule(
    slots: int,
    carried: tuple[tuple[int, ...], ...],
    blocks: tuple[int, ...],
    chunk_blocks: int,
    homes: tuple[int, ...],
) -> Schedule:
    """Return the exchange for these inputs; steps without a change of members share one. Any thread.

    Args:
        slots: Number of slots of the job.
        carried: By rank, the slots it carries in this step.
        blocks: Blocks of each flat tensor.
        chunk_blocks: Blocks in the largest chunk.
        homes: By rank, the lowest rank of its home.
    """
    return Schedule(slots, carried, blocks, chunk_blocks, homes)
