"""No view is possible: too few workers, or none of them can hold version 0.

Survivors wait in what they were doing. The wait ends with enough workers, at its deadline (see
`deadlines`), or as soon as it is clear that nobody can come any more.
"""

from __future__ import annotations

from hpresil.elastic.policy import Choice
from hpresil.membership import ending, view
from hpresil.membership.state import COMING, Ending
from hpresil.membership.turn import Turn


def settle(turn: Turn) -> None:
    """Leave the waiting phase if there are enough workers now, or if none can come any more."""
    state = turn.state
    if state.phase != "waiting" or view.all_finished(turn):
        return
    if state.draining and state.unseeded:
        ending.end(turn, Ending(status=0, reason=f"drained before the first step ({state.draining})"))
        return
    choice = _seeded(turn) if state.unseeded else view.choose(turn, state.members)
    if choice.members:
        for m in state.members:
            if m not in choice.members:
                turn.fence(m, "it has no state, and its place goes to a worker that has")
        view.install(turn, choice.members, choice.reason)
        return
    if not (_fresh_one_comes(turn) if state.unseeded else _enough_can_come(turn)):
        reason = f"{state.reason}, and no worker can be started any more ({state.restarts} restarts used)"
        ending.stop(turn, Ending(status=1, reason=reason))


def _enough_can_come(turn: Turn) -> bool:
    state = turn.state
    coming = [w for w in state.workers.values() if w.phase in (*COMING, "fenced", "leaving")]
    return len(state.members) + len(coming) >= state.settings.min_workers


def _fresh_one_comes(turn: Turn) -> bool:
    """See to it that a worker comes whose state is as the script built it; False if none can."""
    state = turn.state
    if any(w.phase in ("starting", "fenced") or w.pristine for w in state.workers.values()):
        return True
    if state.restarts >= state.settings.max_restarts:
        return False
    spoiled = min(state.workers.values(), key=lambda w: (w.id in state.members, w.id))
    turn.fence(spoiled.id, "its state is not as the script built it, and a worker with version 0 is needed")
    return True


def _seeded(turn: Turn) -> Choice:
    """Put a worker whose state is as the script built it at rank 0."""
    state = turn.state
    candidates = [*state.members, *turn.available()]
    fresh = [m for m in candidates if state.workers[m].pristine]
    if not fresh or len(candidates) < state.settings.min_workers:
        return Choice((), state.reason)
    order = [fresh[0], *(m for m in candidates if m != fresh[0])]
    return Choice(tuple(order[: state.wanted]), f"worker {fresh[0]} holds version 0")
