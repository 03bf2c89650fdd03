"""The exchange of tree nodes between ranks that can read each other's memory.

Every rank reads its part of each node where its owner has it, folds it into its own ``out``, and
then copies the other parts out of the others' ``out``. Only three small messages travel: the
statistics (*my nodes are complete*), the sums of squares (*my part is folded*), and the vote (*I have copied
what I need*). So no byte of a gradient is copied by the kernel.

Why nobody reads what its owner is changing: a node changes when its owner computes further slots, and
``out`` when it reduces again or applies. Within a generation that takes the vote of everybody, which a
reader gives last. After an interruption it takes the next generation's decision, and so the report of
every reader; a reader that has reported can no longer hold a gradient of the old generation. What it reads
then may be torn, and is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.arithmetic import copy, vector
from hpresil.comm.exchange import FOLDED, READABLE, gather, others, start_gather, start_squares
from hpresil.comm.folding import Folding
from hpresil.comm.group import Group
from hpresil.comm.schedule import Schedule
from hpresil.comm.segments import NAME_NUMBERS, NOWHERE, Name, Neighbours, name_of
from hpresil.elastic.slots import Node

_neighbours = Neighbours()


class Segments:
    """The segments of all ranks in one reduction: of each node, and of ``out``.

    Args:
        group: The group of this generation.
        plan: Its exchange.
        nodes: This rank's nodes.
        out: This rank's result.
    """

    def __init__(
        self, group: Group, plan: Schedule, nodes: dict[Node, list[torch.Tensor]], out: list[torch.Tensor]
    ) -> None:
        self._group, self._plan, self._out = group, plan, out
        self._rows = 1 + max(len(own) for own in plan.nodes)
        mine = [name_of(out), *(name_of(nodes[node]) for node in plan.nodes[group.rank])]
        self._mine = mine + [NOWHERE] * (self._rows - len(mine))
        self.nodes: dict[Node, list[torch.Tensor]] = {}
        self.results: dict[int, list[torch.Tensor]] = {}

    def names(self) -> torch.Tensor:
        """Return this rank's names, as bits in float64, to travel behind the statistics."""
        return torch.tensor(self._mine, dtype=torch.int64).view(-1).view(torch.float64)

    def open(self, gathered: torch.Tensor, deadline: Deadline) -> bool:
        """Take in every rank's `names`; returns, alike on all ranks, whether all can read all.

        Once a segment is readable for everybody it stays so, and once one is not the group sends.
        """
        group = self._group
        table = gathered.contiguous().view(torch.int64).view(group.size, self._rows, NAME_NUMBERS).tolist()
        names = {
            rank: [Name(*row) for row in table[rank][: 1 + len(self._plan.nodes[rank])]]
            for rank in range(group.size)
        }
        wanted = {(rank, name) for rank, own in names.items() for name in own}
        if group.size == 1 or group.sends or any(name == NOWHERE for _, name in wanted):
            return False
        theirs = [name for rank in others(group) for name in names[rank]]
        able = _neighbours.open(theirs)
        if not wanted <= group.readable:
            able = bool(gather(group, torch.tensor([able]), READABLE, deadline).all())
            group.readable |= wanted if able else set()
            group.sends = not able
        if able:
            self._bind(names)
        return able

    def _bind(self, names: dict[int, list[Name]]) -> None:
        for rank in others(self._group):
            result, *own = (_neighbours.flats(name, self._out) for name in names[rank])
            self.results[rank] = result
            self.nodes.update(zip(self._plan.nodes[rank], own, strict=True))


class Reading:
    """One reduction on one rank; `Segments.open` has returned True."""

    def __init__(
        self, group: Group, plan: Schedule, folding: Folding, segments: Segments, out: list[torch.Tensor]
    ) -> None:
        self._group, self._plan, self._folding = group, plan, folding
        self._segments, self._out = segments, out

    def run(self, deadline: Deadline) -> None:
        """Do all of it."""
        group, plan = self._group, self._plan
        for chunk in plan.chunks[group.rank]:
            self._check(deadline)
            parts = {node: flats[chunk.flat][chunk.elements] for node, flats in self._segments.nodes.items()}
            self._folding.fold(chunk, parts)
        _, works = start_gather(group, torch.ones(1), FOLDED)
        works += start_squares(group, self._folding, self._out)
        group.finish(works, deadline)
        for peer in others(group):
            self._copy(peer, self._segments.results[peer], deadline)

    def _copy(self, peer: int, result: Sequence[torch.Tensor], deadline: Deadline) -> None:
        for chunk in self._plan.chunks[peer]:
            self._check(deadline)
            copy(vector(self._out[chunk.flat][chunk.elements]), vector(result[chunk.flat][chunk.elements]))

    def _check(self, deadline: Deadline) -> None:
        """Nothing here waits for a peer, so a lost one has to be looked for."""
        if self._group.interrupted:
            raise self._group.lost(deadline.what, RuntimeError("the group is closed"))

    def release(self) -> None:
        """Nothing is lent: mappings are kept for the next reduction."""
