"""How members leave without a fault, and how newcomers enter: nobody waits, nothing is done twice.

Who is to leave: the members on a node that is drained, and those beyond the wanted size.

1. Whoever is ready enters first, up to the wanted size without those that leave. So the group can be larger
   than wanted for a while: newcomers copy the state while all others train, and those that leave can be
   their sources. Nobody leaves before that is done.
2. The members are asked to hand over. The wish travels with the vote, so all stop at the same version.
3. When all have said that they hold it, a view without those that leave is installed. They are released, or
   become spares as far as spares are missing; what they hold is held by all others too.

A loss in between installs a view of its own, with those that leave still in it, and it begins anew.
"""

from __future__ import annotations

from hpresil.membership import nodes, view
from hpresil.membership.messages import FenceWorker, HandedOver, HandOver, Release
from hpresil.membership.turn import Turn

RESERVE = ("spare", "ready", "standby", "starting")
"""Phases of workers in reserve, the most useful first."""


def settle(turn: Turn) -> None:
    """Let in who is ready, else have who is to leave hand over; to be called while all members hold state."""
    state = turn.state
    if state.draining or turn.closing():
        return
    choice = view.choose(turn, state.members)
    if len(choice.members) > len(state.members):
        view.install(turn, choice.members, choice.reason)
        return
    if leaving(turn) and enough_stay(turn) and state.hand_over != state.generation:
        turn.set(hand_over=state.generation, handed=())
        for member in state.members:
            turn.deliver(member, HandOver(generation=state.generation))


def leaving(turn: Turn) -> list[int]:
    """Return the members that are to leave."""
    drained = nodes.members_to_drain(turn)
    staying = [m for m in turn.state.members if m not in drained]
    node_of = {m: turn.state.workers[m].node for m in staying}
    return [*sorted(drained), *view.POLICY.surplus(staying, node_of, turn.state.wanted)]


def enough_stay(turn: Turn) -> bool:
    """Return whether the group may train without those that are to leave."""
    return len(turn.state.members) - len(leaving(turn)) >= turn.state.settings.min_workers


def handed_over(turn: Turn, worker: int, message: HandedOver) -> None:
    """Note that a member has stopped at the end of a step; with the last one, those who leave go."""
    state = turn.state
    current = state.phase == "training" and message.generation == state.generation == state.hand_over
    if not current or worker not in state.members or worker in state.handed:
        return
    turn.set(handed=(*state.handed, worker), handed_since=state.handed_since if state.handed else turn.now)
    conclude(turn)


def conclude(turn: Turn) -> None:
    """Install the view without those that leave if everybody has handed over."""
    state = turn.state
    if state.phase != "training" or state.hand_over != state.generation:
        return
    if not set(state.members) <= set(state.handed):
        return
    if any(state.workers[m].finished >= 0 for m in state.members):
        return  # they are at the last version, and wait for nothing
    going = leaving(turn) if enough_stay(turn) and not state.draining else []
    members = view.POLICY.without(state.members, going)
    released = _into_reserve(turn, going)
    for worker in released:
        turn.update(worker, phase="leaving", since=turn.now)
    named = ", ".join(f"worker {worker}" for worker in sorted(going))
    why = f"{named} handed over" if going else "nobody has to leave any more"
    view.install(turn, members, why)
    for worker in released:
        turn.deliver(worker, Release(drained=True))


def _into_reserve(turn: Turn, going: list[int]) -> list[int]:
    """Make spares of those that can be of use as such; return the others."""
    state = turn.state
    drained = nodes.members_to_drain(turn)
    missing = state.settings.spares - len(_reserve(turn))
    candidates = [w for w in going if w not in drained]
    kept = candidates[: max(0, missing)]
    for worker in kept:
        turn.update(worker, phase="spare", since=turn.now, version=-1, copying=False)
    return [worker for worker in going if worker not in kept]


def _reserve(turn: Turn) -> list[int]:
    """Return the workers in reserve that are not on a drained node, the most useful first."""
    state = turn.state
    found = [w for w in state.workers.values() if w.phase in RESERVE and not nodes.is_draining(turn, w.node)]
    return [w.id for w in sorted(found, key=lambda w: (RESERVE.index(w.phase), w.id))]


def trim(turn: Turn) -> None:
    """Let those in reserve go that are on a node that is drained, or more than the job has use for."""
    state = turn.state
    if state.phase != "training" or not state.trained or turn.closing():
        return
    drained = [w.id for w in state.workers.values() if w.phase in RESERVE and nodes.is_draining(turn, w.node)]
    staying = len(state.members) - len(leaving(turn))
    useful = max(0, state.wanted - staying) + state.settings.spares
    for worker in [*drained, *_reserve(turn)[useful:]]:
        _let_go(turn, worker)


def _let_go(turn: Turn, worker: int) -> None:
    """Release a worker that has no state; one that has not reached its loop yet is not waited for."""
    starting = turn.state.workers[worker].phase == "starting"
    turn.update(worker, phase="leaving", since=turn.now)
    turn.deliver(worker, Release(drained=True))
    if starting:
        turn.actions.append(FenceWorker(worker=worker, why="it is not needed any more"))


def tick(turn: Turn) -> None:
    """Look at what did not happen in time."""
    state = turn.state
    for worker in state.workers.values():
        if worker.phase == "leaving" and turn.now - worker.since >= state.settings.leave_timeout_s:
            limit_s = state.settings.leave_timeout_s
            turn.update(worker.id, since=turn.now)
            why = f"it did not end within {limit_s:g} s after its release"
            turn.actions.append(FenceWorker(worker=worker.id, why=why))
    begun = state.phase == "training" and state.hand_over == state.generation and state.handed
    if begun and not turn.closing() and turn.now - state.handed_since >= state.settings.report_timeout_s:
        view.again(turn, f"not all members handed over within {state.settings.report_timeout_s:g} s")
