"""The coordinator: who is in the job, at which generation, and what everybody does next.

`step` is a pure function of (state, event, time): no sockets, clocks, randomness or processes. An
event is what an agent says, or a `Tick`; an action is what an agent is told. All rules are in the
modules beside this one; here an event finds its rule, and what follows from the new state is done.

    nodes       agents that join, and whether they reach each other
    forming     processes, the first view, replacements
    view        views, reports, the decision
    waiting     no view is possible now
    training    spares, growing, the last version
    decision    reports → decision (used by the workers' model check too)
    transfers   newcomers copying state
    groups      process groups that fail although nobody is lost
    failures    user exceptions and early exits
    deadlines   everything that did not happen in time
    ending      saving, release, the job's end

Once an event is applied its effects hold: a message of an older generation, of a lost or fenced
worker, or of one that has no business to send it, changes nothing.

Not guaranteed here: durability of decisions and the order of messages; that is the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hpresil.membership import (
    deadlines,
    ending,
    failures,
    forming,
    groups,
    messages as m,
    nodes,
    training,
    transfers,
    view,
    waiting,
)
from hpresil.membership.messages import FromAgent, ToAgent
from hpresil.membership.state import KEPT_LOSSES, Ending, Loss, Sealed, Settings, State, Worker, begin
from hpresil.membership.turn import Turn

__all__ = ["Event", "Settings", "State", "Tick", "begin", "step"]


class Tick(m.Message, frozen=True, kw_only=True):
    """Time has passed: deadlines are looked at."""


class NodeLost(m.Message, frozen=True, kw_only=True):
    """The connection to the agent of ``node`` is gone, and so is everything on that node."""

    node: str
    why: str


Event = FromAgent | Tick | NodeLost


def step(state: State, event: Event, now: float) -> tuple[State, list[ToAgent]]:
    """Return the state after ``event`` and what agents are told, in this order.

    Args:
        state: From `begin` or an earlier call; it is not changed.
        event: A message of an agent, or `Tick`.
        now: Monotonic seconds; never less than in an earlier call.
    """
    if state.phase == "ended":
        return state, []
    turn = Turn(state, now)
    rule = _RULES.get(type(event))
    if rule:
        rule(turn, event)
    if turn.state is not state and turn.state.phase != "ended":
        forming.settle(turn)
        view.conclude(turn)
        waiting.settle(turn)
        training.settle(turn)
    return turn.state, turn.actions


def _relayed(turn: Turn, event: m.Relayed) -> None:
    worker = turn.state.workers.get(event.worker)
    if worker is None or worker.phase == "fenced":
        return
    rule = _SAID.get(type(event.said))
    if rule:
        rule(turn, event.worker, event.said)


def _hello(turn: Turn, worker: int, message: m.Hello) -> None:
    turn.update(worker, connected=True, pid=message.pid)


def _worker_started(turn: Turn, event: m.WorkerStarted) -> None:
    if event.worker in turn.state.workers:
        turn.update(event.worker, pid=event.pid, node=event.node)


def _committed(turn: Turn, worker: int, message: m.Committed) -> None:
    if worker in turn.state.members:
        turn.reached(worker, message.step + 1)


def _finished(turn: Turn, worker: int, message: m.Finished) -> None:
    if worker not in turn.state.members or turn.state.phase == "stopping":
        return
    if not any(turn.state.workers[other].finished >= 0 for other in turn.state.members):
        turn.set(finishing_since=turn.now)
    turn.update(worker, finished=message.version, version=message.version)
    turn.reached(worker, message.version)
    if message.drained:
        turn.set(drained=True)


def _frame_sealed(turn: Turn, event: m.FrameSealed) -> None:
    others = {node: sealed for node, sealed in turn.state.sealed.items() if node != event.node}
    if event.version >= 0 and event.node in turn.state.nodes:
        others[event.node] = Sealed(version=event.version, frame=event.frame)
    turn.set(sealed=others)


def _broken(turn: Turn, event: m.Broken) -> None:
    found = Ending(status=1, reason=event.reason, worker=event.worker, step=event.step)
    if not event.sound:
        ending.end(turn, found)
    elif turn.state.phase != "stopping":
        ending.stop(turn, found)


def _drain_requested(turn: Turn, event: m.DrainRequested) -> None:
    if turn.state.draining or turn.state.phase == "stopping":
        return
    turn.set(draining=event.why)
    if turn.state.phase in ("joining", "forming"):
        ending.end(turn, Ending(status=0, reason=f"drained before the first step ({event.why})"))
        return
    for member in turn.state.members:
        turn.deliver(member, m.Drain())


def _worker_lost(turn: Turn, event: m.WorkerLost) -> None:
    worker = turn.state.workers.get(event.worker)
    if worker is None:
        return
    _remember(turn, worker, event)
    seats = [None if member == worker.id else member for member in turn.state.members]
    turn.remove(worker.id)
    if turn.state.phase == "stopping":
        ending.lost(turn, worker.id, event.reason)
        return
    if turn.state.phase in ("joining", "forming"):
        forming.lost(turn, worker, event)
        return
    if worker.phase == "member":
        if failures.exit_counts(turn, worker, event):
            return
        view.seats_lost(turn, seats, f"worker {worker.id} {event.reason}")
    forming.replenish(turn)


def _agent_joined(turn: Turn, event: m.AgentJoined) -> None:
    nodes.joined(turn, event)
    forming.replenish(turn)


def _reached(turn: Turn, event: m.Reached) -> None:
    nodes.reached(turn, event)
    forming.replenish(turn)  # a node that joined later has room now


def _node_lost(turn: Turn, event: NodeLost) -> None:
    """Everybody on the node is lost at once, so that there is one view without them, not several."""
    if event.node not in turn.state.nodes:
        return
    lost = {w.id: w for w in turn.state.workers.values() if w.node == event.node}
    seats = [None if member in lost else member for member in turn.state.members]
    for worker in lost.values():
        _remember(turn, worker, m.WorkerLost(worker=worker.id, reason="node lost"))
        turn.remove(worker.id)
    nodes.forget(turn, event.node)
    if turn.state.phase == "stopping":
        for worker in lost.values():
            ending.lost(turn, worker.id, f"node lost: {event.why}")
    elif turn.state.phase == "forming":
        if not nodes.all_there(turn):
            turn.set(phase="joining", since=turn.now)
        forming.seats_lost(turn)
    elif turn.state.phase != "joining":
        if any(worker.phase == "member" for worker in lost.values()):
            view.seats_lost(turn, seats, f"node {event.node} lost ({event.why})")
        forming.replenish(turn)


def _remember(turn: Turn, worker: Worker, event: m.WorkerLost) -> None:
    loss = Loss(
        worker=worker.id,
        node=worker.node,
        index=worker.index,
        rank=turn.rank(worker.id),
        was_ready=worker.phase != "starting",
        reason=event.reason,
        status=event.status,
        step=event.step,
        slot=event.slot,
        at=turn.now,
    )
    turn.set(losses=(*turn.state.losses, loss)[-KEPT_LOSSES:])


_SAID: dict[type[m.Message], Callable[[Turn, int, Any], None]] = {
    m.Hello: _hello,
    m.Ready: forming.ready,
    m.Report: view.reported,
    m.Committed: _committed,
    m.Finished: _finished,
    m.SlotFailed: failures.slot_failed,
    m.StateDiscarded: failures.state_discarded,
    m.ServeFailed: transfers.serve_failed,
    m.Restored: transfers.restored,
    m.RestoreFailed: transfers.restore_failed,
    m.GroupLost: groups.lost,
    m.Saved: ending.saved,
}

_RULES: dict[type[m.Message], Callable[[Turn, Any], None]] = {
    Tick: lambda turn, event: deadlines.tick(turn),
    m.AgentJoined: _agent_joined,
    m.Reached: _reached,
    NodeLost: _node_lost,
    m.Relayed: _relayed,
    m.WorkerStarted: _worker_started,
    m.WorkerLost: _worker_lost,
    m.FrameSealed: _frame_sealed,
    m.Broken: _broken,
    m.DrainRequested: _drain_requested,
}


def encode_state(state: State) -> bytes:
    """Return ``state`` as MessagePack."""
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes) -> State:
    """Return the state that `encode_state` wrote."""
    return msgspec.msgpack.decode(data, type=State)
