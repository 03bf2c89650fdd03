"""How a job ends: who saves first, who is told what, and with which status.

Every end passes through here, so that `JobEnded` is sent exactly once. Before an early end one
member with state saves it; if that fails, takes too long, or the member dies, the next one is
asked. A job is never kept alive because nobody could save: the error then says so.
"""

from __future__ import annotations

import msgspec

from hpresil.membership.messages import JobEnded, Release, Save, Saved, Stop
from hpresil.membership.state import READY, Ending
from hpresil.membership.turn import Turn


def end(turn: Turn, ending: Ending, saved: str = "") -> None:
    """End the job now."""
    reason = ending.reason
    if ending.status and turn.state.newest > 0 and not saved and not _holders(turn):
        reason = _lost(turn, reason)
    if ending.errors:
        reason += "; the state could not be saved: " + "; ".join(ending.errors)
    if ending.drained and not ending.errors:
        _release(turn, drained=True)
    else:
        for worker in turn.state.workers.values():
            if worker.connected and worker.phase not in ("fenced", "leaving"):
                turn.deliver(worker.id, Stop(reason=reason))
    _say(turn, msgspec.structs.replace(ending, reason=reason), saved)


def finish(turn: Turn, version: int) -> None:
    """Everybody is at the last version: let them go, after saving it if the job was drained."""
    if turn.state.drained:
        reason = f"drained at version {version} ({turn.state.draining or 'a worker asked for it'})"
        stop(turn, Ending(status=0, reason=reason, drained=True))
        return
    _release(turn, drained=False)
    _say(turn, Ending(status=0, reason=f"finished at version {version}"), "")


def _holders(turn: Turn) -> list[int]:
    return [m for m in turn.state.members if turn.state.workers[m].version >= 0]


def _lost(turn: Turn, reason: str) -> str:
    """Say which version is lost, and with whom."""
    recent = ", ".join(f"worker {loss.worker} ({loss.reason})" for loss in turn.state.losses[-4:])
    return (
        f"StateLost: version {turn.state.newest} of the training state is lost and was not saved: {reason}. "
        f"Last losses: {recent or 'none'}. Start again from a saved checkpoint with --resume"
    )


def _release(turn: Turn, *, drained: bool) -> None:
    """Let the members go, and those that waited in reserve for nothing."""
    waiting = [w.id for w in turn.state.workers.values() if w.phase in (*READY, "standby")]
    for worker in [*turn.state.members, *waiting]:
        turn.deliver(worker, Release(drained=drained))


def _say(turn: Turn, ending: Ending, saved: str) -> None:
    turn.actions.append(
        JobEnded(
            status=ending.status,
            reason=ending.reason,
            worker=ending.worker,
            step=ending.step,
            slot=ending.slot,
            traceback=ending.traceback,
            saved=saved,
        )
    )
    turn.set(phase="ended", since=turn.now, reason=ending.reason, ending=ending)


def stop(turn: Turn, ending: Ending) -> None:
    """End the job after a member has saved its state."""
    turn.set(phase="stopping", since=turn.now, reason=ending.reason, ending=ending)
    _ask_next(turn)


def ask_again(turn: Turn) -> None:
    """Ask anew who shall save: what was asked before may have been lost with the coordinator."""
    ending = turn.state.ending
    assert ending is not None
    turn.set(ending=msgspec.structs.replace(ending, tried=()))
    _ask_next(turn)


def saved(turn: Turn, worker: int, answer: Saved) -> None:
    """Take a worker's answer to `Save`."""
    ending = turn.state.ending
    if turn.state.phase != "stopping" or ending is None or ending.saver != worker:
        return
    if answer.error:
        saver_failed(turn, answer.error)
    else:
        end(turn, msgspec.structs.replace(ending, errors=()), answer.path)


def lost(turn: Turn, worker: int, why: str) -> None:
    """A worker is gone while the job ends; only the one that saves matters."""
    current = turn.state.ending
    if current is not None and current.saver == worker:
        saver_failed(turn, f"was lost ({why})")


def saver_failed(turn: Turn, why: str) -> None:
    """Ask the next member, since the one that should save did not."""
    ending = turn.state.ending
    assert ending is not None
    errors = (*ending.errors, f"worker {ending.saver}: {why}")
    turn.set(ending=msgspec.structs.replace(ending, errors=errors))
    _ask_next(turn)


def _ask_next(turn: Turn) -> None:
    """Ask a member that holds state and was not asked yet.

    First who has the newest version, then by rank; then those that announced their exit; at last
    those that were about to copy the state and may have it by now.
    """
    state, ending = turn.state, turn.state.ending
    assert ending is not None
    holders = _holders(turn)
    copying = [m for m in state.members if state.workers[m].copying]
    candidates = [m for m in (*holders, *copying) if m not in ending.tried]
    if not candidates or not state.settings.save_directory:
        status = ending.status or (1 if ending.errors else 0)
        end(turn, msgspec.structs.replace(ending, status=status))
        return
    saver = min(
        candidates,
        key=lambda m: (m not in holders, state.workers[m].left, m != state.newest_by, candidates.index(m)),
    )
    tried = (*ending.tried, saver)
    turn.set(ending=msgspec.structs.replace(ending, saver=saver, since=turn.now, tried=tried))
    turn.deliver(saver, Save(directory=state.settings.save_directory))
