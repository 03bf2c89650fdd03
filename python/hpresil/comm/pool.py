"""Communicators that stand by for a view that is not there yet: which to make, keep and use.

The problem: initialising a communicator takes seconds, and the members of the next view are often known
beforehand: one of today's workers or nodes is gone, a spare has its place. The design: `decide` turns (state,
event) into (state, actions), for the most likely next views first, one initialisation at a time, so that
training hardly notices. A stand-in gives its device memory back if NCCL can suspend (2.29.7); else at most
`keep_active` stand by with their memory, and with 0 there are none.

A stand-in belongs to workers, not to a generation: workers' numbers are never used again, so one with a lost
member can never be mistaken for another. Each is used once.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Members = tuple[int, ...]  # workers' numbers, in the order of their ranks


@dataclass(frozen=True)
class Installed:
    """A view was installed.

    Attributes:
        members: Its workers.
        likely: The views that may be next, the most likely first.
        living: All workers that live, spares among them; a view with another one is not prepared.
    """

    members: Members
    likely: tuple[Members, ...]
    living: frozenset[int]


@dataclass(frozen=True)
class Made:
    """A stand-in was initialised."""

    members: Members


@dataclass(frozen=True)
class Suspended:
    """A stand-in has given its memory back."""

    members: Members


@dataclass(frozen=True)
class Failed:
    """A stand-in could not be made or suspended."""

    members: Members
    reason: str


Event = Installed | Made | Suspended | Failed


@dataclass(frozen=True)
class Make:
    """Initialise a stand-in, without haste."""

    members: Members


@dataclass(frozen=True)
class Suspend:
    """Let a stand-in give its memory back."""

    members: Members


@dataclass(frozen=True)
class Take:
    """Use this stand-in for the view that was just installed; resume it first if it is suspended."""

    members: Members
    suspended: bool


@dataclass(frozen=True)
class Abort:
    """Abort a stand-in."""

    members: Members
    reason: str


Action = Make | Suspend | Take | Abort


@dataclass(frozen=True)
class Pool:
    """The stand-ins, by members: "making", "suspending", "ready" or "suspended".

    Args:
        can_suspend: NCCL can suspend communicators.
        most: How many stand by at most.
        keep_active: How many of them without suspension.
    """

    can_suspend: bool
    most: int = 4
    keep_active: int = 0
    wanted: tuple[Members, ...] = ()
    stand_ins: tuple[tuple[Members, str], ...] = ()
    failed: frozenset[Members] = frozenset()

    @property
    def room(self) -> int:
        """How many may stand by here."""
        return self.most if self.can_suspend else min(self.most, self.keep_active)

    def state(self, members: Members) -> str:
        """Return how a stand-in is, or "" if there is none."""
        return dict(self.stand_ins).get(members, "")


def after_one_loss(
    members: Members, spares: Sequence[int], groups: Iterable[frozenset[int]]
) -> tuple[Members, ...]:
    """Return the views after the loss of each of ``groups`` (a worker, a node), in their order.

    The first spares that are not in the group itself take the lost ranks; without enough of them ranks
    close up.

    Args:
        members: Workers of today's view, in the order of their ranks.
        spares: Workers that stand by, in the order in which they are taken.
        groups: Workers that may be lost together. A loss that changes nothing, or leaves nobody, has no view;
            equal views are listed once.
    """
    views: list[Members] = []
    for group in groups:
        ready = iter([spare for spare in spares if spare not in group])
        places = [next(ready, None) if member in group else member for member in members]
        view = tuple(member for member in places if member is not None)
        if view and view != members and view not in views:
            views.append(view)
    return tuple(views)


def decide(pool: Pool, event: Event) -> tuple[Pool, tuple[Action, ...]]:
    """Return the next state and what to do, in order.

    An event of a stand-in that is not there, because it was taken or aborted, has no effect, nor has an
    answer to what was not asked.
    """
    actions: tuple[Action, ...] = ()
    if isinstance(event, Installed):
        pool, actions = _install(pool, event)
    elif not _expected(pool.state(event.members), event):
        return pool, ()
    elif isinstance(event, Made):
        state = "suspending" if pool.can_suspend else "ready"
        pool = _put(pool, event.members, state)
        actions = (Suspend(event.members),) if pool.can_suspend else ()
    elif isinstance(event, Suspended):
        pool = _put(pool, event.members, "suspended")
    else:
        pool = replace(_put(pool, event.members, ""), failed=pool.failed | {event.members})
        actions = (Abort(event.members, event.reason),)
    pool, more = _make_next(pool)
    return pool, actions + more


def _expected(state: str, event: Made | Suspended | Failed) -> bool:
    if isinstance(event, Made):
        return state == "making"
    return state == "suspending" if isinstance(event, Suspended) else state != ""


def _install(pool: Pool, event: Installed) -> tuple[Pool, tuple[Action, ...]]:
    wanted = [view for view in event.likely if event.living.issuperset(view)][: pool.room]
    actions: list[Action] = []
    for members, state in pool.stand_ins:
        if members == event.members and state in ("ready", "suspended"):
            actions.append(Take(members, state == "suspended"))
        elif members == event.members:
            actions.append(Abort(members, "the view it was made for came before it was ready"))
        elif not event.living.issuperset(members):
            actions.append(Abort(members, "a member is gone"))
        elif members not in wanted:
            actions.append(Abort(members, "the view it was made for is not likely any more"))
        else:
            continue
        pool = _put(pool, members, "")
    return replace(pool, wanted=tuple(wanted), failed=frozenset()), tuple(actions)


def _make_next(pool: Pool) -> tuple[Pool, tuple[Action, ...]]:
    """Begin the next one, unless one is under way or there is no room."""
    busy = any(state in ("making", "suspending") for _, state in pool.stand_ins)
    if busy or len(pool.stand_ins) >= pool.room:
        return pool, ()
    for members in pool.wanted:
        if not pool.state(members) and members not in pool.failed:
            return _put(pool, members, "making"), (Make(members),)
    return pool, ()


def _put(pool: Pool, members: Members, state: str) -> Pool:
    others = tuple(entry for entry in pool.stand_ins if entry[0] != members)
    return replace(pool, stand_ins=(*others, (members, state)) if state else others)
