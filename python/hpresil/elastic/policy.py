"""Who trains next: a lost rank is given to a ready spare, else the group shrinks, and it grows back.

The question is asked at two moments: when a member is lost, and when a worker has become ready
while the group is smaller than wanted. The answer is a pure function of a `Situation`, so that the
coordinator, the tests and a simulator get the same one, and it carries its reason in words.

A member keeps its rank as long as nobody with a lower rank leaves without a substitute; then ranks
close up. Nobody joins a group that is about to leave its loop: it would copy state for nothing.

Not decided here: whether a replacement process is started (the coordinator's restart budget), and
where a newcomer's state comes from.
"""

from __future__ import annotations

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
    """

    seats: tuple[int | None, ...]
    ready: tuple[int, ...]
    wanted: int
    minimum: int
    closing: bool = False


@dataclass(frozen=True)
class Choice:
    """The members of the next view by rank, empty if no group may train now, and why."""

    members: tuple[int, ...]
    reason: str


class Policy:
    """Replace before shrinking, grow as soon as possible."""

    def choose(self, situation: Situation) -> Choice:
        """Return the next members: at most ``wanted``, at least ``minimum``, or none."""
        if situation.closing:
            left = tuple(seat for seat in situation.seats if seat is not None)
            return Choice(left, f"the loop is being left: {len(left)} members go on")
        ready = list(situation.ready)
        members: list[int] = []
        changes: list[str] = []
        for rank, seat in enumerate(situation.seats):
            if seat is not None:
                members.append(seat)
            elif ready:
                members.append(ready.pop(0))
                changes.append(f"worker {members[-1]} takes rank {rank}")
            else:
                changes.append(f"rank {rank} has no substitute, its slots move")
        while ready and len(members) < situation.wanted:
            members.append(ready.pop(0))
            changes.append(f"worker {members[-1]} joins as rank {len(members) - 1}")
        if len(members) < situation.minimum:
            return Choice((), f"{len(members)} of at least {situation.minimum} workers are there")
        return Choice(tuple(members), "; ".join(changes) or "the members stay")
