"""Failures that have a culprit: user code that raises or exits too early.

User exceptions are bounded: the second failure at the same (step, slot), by whatever worker, is
the user's bug and stops the job, with the version before that step saved. What a worker raises
and the exit that follows from it are one failure. Failures are counted over the whole job.
A worker whose state is spoiled after a commit copies it from another one, once a step.
"""

from __future__ import annotations

from hpresil.membership import ending, view
from hpresil.membership.messages import SlotFailed, StateDiscarded, WorkerLost
from hpresil.membership.state import Ending, Failure, Worker
from hpresil.membership.turn import Turn


def _count(turn: Turn, step: int, slot: int) -> int:
    """Count one more failure at (step, slot) and return how many there were."""
    others = tuple(f for f in turn.state.failures if (f.step, f.slot) != (step, slot))
    before = sum(f.count for f in turn.state.failures if (f.step, f.slot) == (step, slot))
    turn.set(failures=(*others, Failure(step=step, slot=slot, count=before + 1)))
    return before + 1


def _place(step: int, slot: int) -> str:
    return f"step {step}, slot {slot}" if slot >= 0 else f"step {step}"


def slot_failed(turn: Turn, worker: int, message: SlotFailed) -> None:
    """User code raised before the commit."""
    if worker not in turn.state.members or turn.state.phase in ("stopping", "ended"):
        return
    if not message.retry:
        turn.update(worker, left=True)
    count = _count(turn, message.step, message.slot)
    place = _place(message.step, message.slot)
    if message.kind in ("nonfinite", "usage"):
        why = f"{turn.name(worker)}: {message.error} at {place}"
    elif count > 1:
        why = f"{turn.name(worker)} failed at {place}, the second failure there: {message.error}"
    else:
        return
    stop = Ending(
        status=1,
        reason=why,
        worker=worker,
        step=message.step,
        slot=message.slot,
        traceback=message.traceback,
    )
    ending.stop(turn, stop)


def exit_counts(turn: Turn, worker: Worker, message: WorkerLost) -> bool:
    """Count the exit of a member inside a step; True if that stops the job.

    The worker is already taken out. An exit it had announced counts once only.
    """
    place = (message.step, message.slot)
    if message.reason != "exited" or not message.armed or worker.left:
        return False
    if _count(turn, *place) < 2:
        return False
    reason = (
        f"worker {worker.id} ended with exit status {message.status} at {_place(*place)}, the second failure "
        "there; its log shows why"
    )
    stop = Ending(status=1, reason=reason, worker=worker.id, step=message.step, slot=message.slot)
    ending.stop(turn, stop)
    return True


def state_discarded(turn: Turn, worker: int, message: StateDiscarded) -> None:
    """User code raised after the commit: that worker copies the state once, else the job stops."""
    state = turn.state
    if worker not in state.members or state.phase in ("stopping", "ended"):
        return
    turn.update(worker, version=-1, copying=False, pristine=False, finished=-1)
    others = [m for m in state.members if m != worker and state.workers[m].version >= 0]
    again = message.step in state.discards
    turn.set(discards=tuple(sorted({*state.discards, message.step})))
    if others and not again:
        if state.phase != "waiting":
            reason = f"{turn.name(worker)} lost its state after step {message.step}: {message.error}"
            view.again(turn, reason)
        return
    why = "the second time after this step" if again else "and no other worker has a copy of the state"
    stop = Ending(
        status=1,
        reason=f"{turn.name(worker)} failed after the commit of step {message.step}, {why}: {message.error}",
        worker=worker,
        step=message.step,
        traceback=message.traceback,
    )
    ending.stop(turn, stop)
