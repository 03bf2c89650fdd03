"""What happens when something expected did not come: every wait of the coordinator ends here.

Rules: nobody is fenced on suspicion while that could destroy the last copy of the state, and an
error names who was waited for and how long.
"""

from __future__ import annotations

from collections.abc import Callable

from hpresil.membership import draining, ending, forming, groups, handover, quorum, view
from hpresil.membership.state import Ending, Worker
from hpresil.membership.turn import Turn


def tick(turn: Turn) -> None:
    """Look at every deadline that is running."""
    rule = _BY_PHASE.get(turn.state.phase)
    if rule:
        rule(turn)
    if turn.state.phase not in ("joining", "forming", "stopping", "ended"):
        _late_starters(turn)
        handover.tick(turn)
        draining.tick(turn)


def _late(turn: Turn, since: float, limit_s: float) -> bool:
    return turn.now - since >= limit_s


def _named(turn: Turn, workers: list[Worker]) -> str:
    return ", ".join(f"worker {w.id} (process {w.pid}, for {turn.now - w.since:.0f} s)" for w in workers)


def _joining(turn: Turn) -> None:
    limit_s = turn.state.settings.join_timeout_s
    if _late(turn, turn.state.since, limit_s):
        there = ", ".join(turn.state.nodes) or "none"
        reason = (
            f"not all {turn.state.settings.nnodes} nodes joined within {limit_s:g} s; there: {there}. Start "
            "hpresil run with the same --coordinator on the others, or lower --nnodes"
        )
        ending.end(turn, Ending(status=1, reason=reason))


def _forming(turn: Turn) -> None:
    limit_s = turn.state.settings.join_timeout_s
    missing = [w for w in turn.state.workers.values() if w.seat and w.phase == "starting"]
    if any(_late(turn, w.since, limit_s) for w in missing):
        reason = (
            f"not all workers reached run.steps() within {limit_s:g} s; missing: {_named(turn, missing)}. "
            "Look into their logs, or raise --join-timeout"
        )
        ending.end(turn, Ending(status=1, reason=reason, worker=missing[0].id))


def _late_starters(turn: Turn) -> None:
    limit_s = turn.state.settings.join_timeout_s
    for worker in list(turn.state.workers.values()):
        if worker.phase in ("starting", "standby") and _late(turn, worker.since, limit_s):
            turn.fence(worker.id, f"it was not ready within {limit_s:g} s")


def _waiting(turn: Turn) -> None:
    state = turn.state
    limit_s = state.settings.min_workers_timeout_s
    if _late(turn, state.since, limit_s):
        reason = f"no view was possible for {limit_s:g} s: {state.reason}"
        ending.stop(turn, Ending(status=1, reason=reason))


def _regrouping(turn: Turn) -> None:
    """Fence members that do not answer, once somebody who has answered holds the state."""
    groups.rebuild(turn)
    state = turn.state
    limit_s = state.settings.report_timeout_s
    if state.phase != "regrouping":
        return
    if not quorum.may_decide(state):
        _cut_off(turn)
        return
    if not _late(turn, state.since, limit_s):
        return
    silent = [m for m in state.members if m not in state.reports]
    if any(report.version >= 0 for report in state.reports.values()):
        _fence(turn, silent, f"it did not report for generation {state.generation} within {limit_s:g} s")
        return
    reason = (
        f"no member with state has reported for generation {state.generation} within {limit_s:g} s; silent: "
        f"{', '.join(turn.name(m) for m in silent)}"
    )
    ending.stop(turn, Ending(status=1, reason=reason))


def _cut_off(turn: Turn) -> None:
    limit_s = turn.state.settings.min_workers_timeout_s
    if _late(turn, turn.state.since, limit_s):
        reason = f"for {limit_s:g} s: {quorum.apart(turn.state)}"
        ending.stop(turn, Ending(status=1, reason=reason))


def _training(turn: Turn) -> None:
    groups.rebuild(turn)
    state = turn.state
    if state.phase != "training":
        return
    if state.restoring:
        limit_s = state.settings.restore_timeout_s
        if _late(turn, state.since, limit_s):
            _fence(turn, list(state.restoring), f"it did not copy the state within {limit_s:g} s")
        return
    left = [m for m in state.members if state.workers[m].finished >= 0]
    if left and _late(turn, state.finishing_since, state.settings.report_timeout_s):
        late = [m for m in state.members if m not in left]
        limit_s = state.settings.report_timeout_s
        _fence(turn, late, f"it did not reach the last version within {limit_s:g} s of {turn.name(left[0])}")


def _fence(turn: Turn, workers: list[int], why: str) -> None:
    seats = [None if m in workers else m for m in turn.state.members]
    for worker in workers:
        turn.fence(worker, why)
    named = ", ".join(f"worker {worker}" for worker in workers)
    view.seats_lost(turn, seats, f"{named} fenced: {why}")
    forming.replenish(turn)


def _stopping(turn: Turn) -> None:
    current = turn.state.ending
    limit_s = turn.state.settings.save_timeout_s
    if current is not None and _late(turn, current.since, limit_s):
        ending.saver_failed(turn, f"has not saved within {limit_s:g} s")


_BY_PHASE: dict[str, Callable[[Turn], None]] = {
    "joining": _joining,
    "forming": _forming,
    "waiting": _waiting,
    "regrouping": _regrouping,
    "training": _training,
    "stopping": _stopping,
}
