"""Which ranks can read each other's memory, agreed upon by all: these are a home.

Each rank names the segments that its nodes and its result are in, with the statistics of the step. Ranks
that claim the same node are a home if each of them could open what the others named. Everybody says so once
for what is new; if one could not, the ranks of that home are alone for as long as the group lives, and so
is a rank whose buffers are in no segment. What is decided follows from what all ranks know, so all decide
alike.

Thread rule: that of the group, one thread at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.group import Group
from hpresil.comm.segments import NAME_NUMBERS, NOWHERE, Name, Neighbours, name_of
from hpresil.comm.small_messages import READABLE, gather
from hpresil.elastic.slots import Node

_neighbours = Neighbours()

Names = list[list[Name]]


class Homes:
    """The memory that one rank can see in one reduction.

    Args:
        group: The group of this generation.
        contributed: By rank, the tree nodes it contributes.
        nodes: This rank's nodes.
        out: This rank's result.

    Attributes:
        nodes: The flat tensors of all nodes of this rank's home, once `agree` has returned.
        own_nodes: How many of them are this rank's own.
        results: The result of each other rank of the home.
    """

    def __init__(
        self,
        group: Group,
        contributed: Sequence[Sequence[Node]],
        nodes: dict[Node, list[torch.Tensor]],
        out: list[torch.Tensor],
    ) -> None:
        self._group, self._contributed, self._out = group, contributed, out
        self._rows = 1 + max(len(own) for own in contributed)
        mine = [name_of(out), *(name_of(nodes[node]) for node in contributed[group.rank])]
        self._mine = mine + [NOWHERE] * (self._rows - len(mine))
        self.nodes, self.own_nodes = dict(nodes), len(nodes)
        self.results: dict[int, list[torch.Tensor]] = {}

    def names(self) -> torch.Tensor:
        """Return this rank's names, as bits in 1-D float64 of equal length on all ranks.

        They travel behind the statistics.
        """
        return torch.tensor(self._mine, dtype=torch.int64).view(-1).view(torch.float64)

    def agree(self, gathered: torch.Tensor, deadline: Deadline) -> tuple[int, ...]:
        """Take in every rank's `names`; returns by rank the lowest rank of its home.

        Args:
            gathered: One row a rank: its names.
            deadline: Of the question who can read whom, if there is anything new.

        Raises:
            PeerLost: A peer died or hung, or a segment that could be opened before cannot be now.
        """
        group = self._group
        table = gathered.contiguous().view(torch.int64).view(group.size, self._rows, NAME_NUMBERS).tolist()
        names = [
            [Name(*row) for row in rows[: 1 + len(own)]]
            for rows, own in zip(table, self._contributed, strict=True)
        ]
        homes = _claimed(names, group.alone)
        able = self._open(names, homes)
        wanted = {
            (rank, name) for rank, home in enumerate(homes) if homes.count(home) > 1 for name in names[rank]
        }
        if not wanted <= group.readable:
            answers = gather(group, torch.tensor([able]), READABLE, deadline)[:, 0].tolist()
            unable = {home for home, answer in zip(homes, answers, strict=True) if not answer}
            group.alone |= {rank for rank, home in enumerate(homes) if home in unable}
            group.readable |= {(rank, name) for rank, name in wanted if homes[rank] not in unable}
            homes = _claimed(names, group.alone)
        elif not able:
            raise group.lost(deadline.what, RuntimeError("a neighbour's memory cannot be read any more"))
        self._bind(names, homes)
        return homes

    def _open(self, names: Names, homes: tuple[int, ...]) -> bool:
        return _neighbours.open([name for mate in self._mates(homes) for name in names[mate]])

    def _bind(self, names: Names, homes: tuple[int, ...]) -> None:
        for mate in self._mates(homes):
            result, *own = (_neighbours.flats(name, self._out) for name in names[mate])
            self.results[mate] = result
            self.nodes.update(zip(self._contributed[mate], own, strict=True))

    def _mates(self, homes: tuple[int, ...]) -> list[int]:
        me = self._group.rank
        return [rank for rank, home in enumerate(homes) if home == homes[me] and rank != me]


def _claimed(names: Names, alone: set[int]) -> tuple[int, ...]:
    """Return the homes that the ranks' names speak of."""
    ranks: defaultdict[int, list[int]] = defaultdict(list)
    for rank, own in enumerate(names):
        if rank not in alone and NOWHERE not in own:
            ranks[own[0].home].append(rank)
    lowest = {rank: together[0] for together in ranks.values() for rank in together}
    return tuple(lowest.get(rank, rank) for rank in range(len(names)))
