"""Who trains next: a lost rank is given to a ready spare, else the group shrinks, and it grows back.

The question is asked when a member is lost, when a worker has become ready while the group is smaller than
wanted, and when members have handed over their slots because they are to leave. The answer is a pure function
of a `Situation`, so that the coordinator, the tests and a simulator get the same one, and it carries its
reason in words.

A member keeps its rank as long as nobody with a lower rank leaves without a substitute; then ranks
close up. Nobody joins a group that is about to leave its loop: it would copy state for nothing. Who is to
leave stays until others hold the state and its slots were handed over; a group is larger than wanted so long.

Not decided here: whether a replacement process is started (the coordinator's restart budget), and
where a newcomer's state comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """What the choice depends on.

    Attributes:
        seats: The workers of the last view by rank; None where the worker is lost.
        ready: Workers that could join, best first.
        wanted: The size of the full group.
        minimum: The smallest group that may train.
        closing: The members are leaving their loop; nobody joins and any size will do.
        leaving: Members that are to leave; somebody else may have their place already.
    """

    seats: tuple[int | None, ...]
    ready: tuple[int, ...]
    wanted: int
    minimum: int
    closing: bool = False
    leaving: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Choice:
    """The members of the next view by rank, empty if no group may train now, and why."""

    members: tuple[int, ...]
    reason: str


class Policy:
    """Replace before shrinking, grow as soon as possible."""

    def choose(self, situation: Situation) -> Choice:
        """Return the next members, nobody who is there being sent away: at least ``minimum``, or none.

        Newcomers fill the group up to ``wanted``, not counting those that are to leave.
        """
        if situation.closing:
            left = tuple(seat for seat in situation.seats if seat is not None)
            return Choice(left, f"the loop is being left: {len(left)} members go on")
        staying = [seat for seat in situation.seats if seat is not None and seat not in situation.leaving]
        newcomers = list(situation.ready[: max(0, situation.wanted - len(staying))])
        members: list[int] = []
        changes: list[str] = []
        for rank, seat in enumerate(situation.seats):
            if seat is not None:
                members.append(seat)
            elif newcomers:
                members.append(newcomers.pop(0))
                changes.append(f"worker {members[-1]} takes rank {rank}")
            else:
                changes.append(f"rank {rank} has no substitute, its slots move")
        for newcomer in newcomers:
            members.append(newcomer)
            changes.append(f"worker {newcomer} joins as rank {len(members) - 1}")
        if len(members) < situation.minimum:
            return Choice((), f"{len(members)} of at least {situation.minimum} workers are there")
        return Choice(tuple(members), "; ".join(changes) or "the members stay")

    def surplus(self, members: Sequence[int], node_of: Mapping[int, str], wanted: int) -> list[int]:
        """Return who leaves a group that is larger than wanted, in this order.

        The highest ranks of the fullest node go first, so that those who stay are spread over the nodes.
        """
        left = list(members)
        gone: list[int] = []
        while len(left) > wanted:
            on_node: dict[str, int] = {}
            for member in left:
                on_node[node_of[member]] = on_node.get(node_of[member], 0) + 1
            rank = max(range(len(left)), key=lambda r: (on_node[node_of[left[r]]], r))
            gone.append(left.pop(rank))
        return gone

    def without(self, members: Sequence[int], leaving: Collection[int]) -> tuple[int, ...]:
        """Return the members by rank after some have left; most of those who stay keep their rank.

        The last ones take the ranks that become free.
        """
        staying = [member for member in members if member not in leaving]
        movers = [member for member in members[len(staying) :] if member not in leaving]
        seats = members[: len(staying)]
        return tuple(movers.pop(0) if member in leaving else member for member in seats)
