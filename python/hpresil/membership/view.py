"""Views, the reports they call for, and the decision made from them.

A view is installed for every change of the members, and also when the members stay but one of
them has to start over (its state was discarded, a transfer failed). Reports count only for the
current view; when the last one is in, the decision is made. A loss in between just installs the
next view, and new reports are collected.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpresil.elastic.policy import Choice, Policy, Situation
from hpresil.membership import ending, nodes, quorum
from hpresil.membership.decision import Known, decide
from hpresil.membership.messages import Decision, Drain, Report, View
from hpresil.membership.state import READY, Ending
from hpresil.membership.turn import Turn

POLICY = Policy()


def install(turn: Turn, members: Sequence[int], reason: str) -> None:
    """Install the next generation with ``members`` by rank."""
    generation = turn.state.generation + 1
    workers = turn.state.workers
    joined = [m for m in members if workers[m].phase != "member"]
    released = [m for m in turn.state.members if workers[m].phase == "leaving"]
    for m in joined:
        turn.update(m, phase="member", since=turn.now)
    turn.set(
        phase="regrouping",
        since=turn.now,
        reason=reason,
        generation=generation,
        members=tuple(members),
        reports={},
        decision=None,
        restoring=(),
        unseeded=False,
        group_lost="",
        hand_over=0,
        handed=(),
    )
    nodes.announce(turn)
    view = View(generation=generation, members=list(members))
    onlookers = [w.id for w in turn.state.workers.values() if w.phase in (*READY, "standby")]
    for worker in [*members, *onlookers, *released]:
        turn.deliver(worker, view)
    if turn.state.draining:
        for m in joined:
            turn.deliver(m, Drain())


def choose(turn: Turn, seats: Sequence[int | None]) -> Choice:
    """Ask the policy who the next members are."""
    settings = turn.state.settings
    situation = Situation(
        seats=tuple(seats),
        ready=turn.available(),
        wanted=turn.state.wanted,
        minimum=settings.min_workers,
        closing=turn.closing(),
        leaving=frozenset(nodes.members_to_drain(turn)),
    )
    return POLICY.choose(situation)


def seats_lost(turn: Turn, seats: Sequence[int | None], why: str) -> None:
    """Members were lost: ``seats`` are the old view's ranks, None where the worker is gone."""
    if all_finished(turn):
        return
    if turn.state.unseeded:
        wait(turn, why, unseeded=True)
        return
    choice = choose(turn, seats)
    if choice.members:
        install(turn, choice.members, f"{why}: {choice.reason}")
    else:
        wait(turn, f"{why}: {choice.reason}")


def again(turn: Turn, why: str) -> None:
    """Install a new generation with the same members."""
    install(turn, turn.state.members, why)


def wait(turn: Turn, reason: str, *, unseeded: bool = False) -> None:
    """No view is possible: the survivors wait, until enough workers are there or a deadline."""
    since = turn.state.since if turn.state.phase == "waiting" else turn.now
    turn.set(
        phase="waiting",
        since=since,
        reason=reason,
        unseeded=unseeded,
        group_lost="",
    )
    if unseeded:
        turn.set(trained=False)


def reported(turn: Turn, worker: int, report: Report) -> None:
    """Take a member's report; for the decision the first one for the current generation counts."""
    turn.copied(worker, report.version)
    state = turn.state
    current = state.phase == "regrouping" and report.generation == state.generation
    if not current or worker not in state.members or worker in state.reports:
        return
    turn.set(reports={**state.reports, worker: report})
    turn.reached(worker, report.version)
    left_at = report.version if report.finished else state.workers[worker].finished
    turn.update(worker, version=report.version, finished=left_at)


def conclude(turn: Turn) -> None:
    """Make the decision if every member has reported."""
    state = turn.state
    if state.phase != "regrouping" or any(m not in state.reports for m in state.members):
        return
    if not quorum.may_decide(state):
        turn.set(reason=quorum.apart(state))
        return
    store = max(state.sealed, key=lambda node: (state.sealed[node].version, node), default="")
    known = Known(
        slots=state.slots,
        pristine=frozenset(m for m in state.members if state.workers[m].pristine),
        newest=state.newest,
        resumed=state.resumed,
        sealed=state.sealed[store].version if store else -1,
        store=store,
        avoid=state.avoid,
    )
    outcome = decide(state.generation, state.members, state.reports, known)
    if isinstance(outcome, Decision):
        _apply(turn, outcome)
    elif outcome.kind == "unseeded":
        wait(turn, outcome.reason, unseeded=True)
    else:
        ending.stop(turn, Ending(status=1, reason=outcome.reason))


def _apply(turn: Turn, decision: Decision) -> None:
    for m in turn.state.members:
        version = -1 if m in decision.sources else decision.target
        turn.update(m, pristine=False, version=version, copying=m in decision.sources)
    turn.set(
        phase="training",
        since=turn.now,
        decision=decision,
        restoring=tuple(m for m in turn.state.members if m in decision.sources),
        newest=max(turn.state.newest, decision.target),
        newest_by=-1,
    )
    for m in turn.state.members:
        turn.deliver(m, decision)


def all_finished(turn: Turn) -> bool:
    """End the job if every member has left its loop; True if the job is over or about to be."""
    members = [turn.state.workers[m] for m in turn.state.members]
    if not members or any(m.finished < 0 for m in members):
        return False
    versions = sorted({m.finished for m in members})
    if len(versions) > 1:
        told = ", ".join(f"worker {m.id} at version {m.finished}" for m in members)
        reason = (
            f"the members left their loops at different versions: {told}; every rank must run the same steps"
        )
        ending.stop(turn, Ending(status=1, reason=reason))
    else:
        ending.finish(turn, versions[0])
    return True
