"""Newcomers copying state after a decision: done, or failed and tried again.

Only the coordinator's part: agents and workers move the bytes. A failed transfer starts a new
generation with the same members, in which the failing source is used only if there is no other;
after `MAX_FAILURES` in a row without one success the job stops.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpresil.membership import ending, view
from hpresil.membership.messages import Restored, RestoreFailed, ServeFailed
from hpresil.membership.state import Ending
from hpresil.membership.turn import Turn

MAX_FAILURES = 3


def restored(turn: Turn, worker: int, message: Restored) -> None:
    """Note that a newcomer has copied the state."""
    turn.copied(worker, message.version)
    state = turn.state
    if message.generation != state.generation or worker not in state.restoring or not state.decision:
        return
    if message.version != state.decision.target:
        turn.update(worker, version=-1)
        error = f"it got version {message.version} instead of {state.decision.target}"
        failed = RestoreFailed(generation=message.generation, frame=-1, error=error)
        restore_failed(turn, worker, failed)
        return
    turn.set(restoring=tuple(m for m in state.restoring if m != worker))


def restore_failed(turn: Turn, worker: int, message: RestoreFailed) -> None:
    """Try again, since a newcomer could not read the state it was given."""
    turn.copied(worker, -1)
    state = turn.state
    current = state.phase == "training" and message.generation == state.generation
    if not current or worker not in state.restoring or not state.decision:
        return
    source = state.decision.sources[worker]
    _transfer_failed(turn, {source}, f"{turn.name(worker)} could not copy the state: {message.error}")


def serve_failed(turn: Turn, worker: int, message: ServeFailed) -> None:
    """Try again, since a source could not hand out its state."""
    state = turn.state
    current = state.phase == "training" and message.generation == state.generation
    if not current or not state.restoring or not state.decision:
        return
    if worker in state.decision.sources.values():
        _transfer_failed(turn, {worker}, f"{turn.name(worker)} could not serve its state: {message.error}")


def _transfer_failed(turn: Turn, sources: Iterable[int], why: str) -> None:
    failures = turn.state.restore_failures + 1
    avoid = tuple(sorted({*turn.state.avoid, *(source for source in sources if source >= 0)}))
    turn.set(restore_failures=failures, avoid=avoid)
    if failures <= MAX_FAILURES:
        view.again(turn, why)
        return
    reason = f"{why}; {failures} transfers in a row failed at generation {turn.state.generation}"
    ending.stop(turn, Ending(status=1, reason=reason))
