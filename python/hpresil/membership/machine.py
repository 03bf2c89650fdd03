"""The coordinator: who is in the job, at which generation, and what everybody does next.

`step` is a pure function of (state, event, time): no sockets, clocks, randomness or processes. An
event is what an agent says, or a `Tick`; an action is what an agent is told. All rules are in the
modules beside this one; here an event finds its rule, and what follows from the new state is done.

    nodes       agents that join, and whether they reach each other
    forming     processes, the first view, replacements
    view        views, reports, the decision
    waiting     no view is possible now
    training    spares, the last version
    handover    members that leave without a fault, newcomers that enter
    wishes      what people ask: drain a node, resize the group
    draining    nodes that are drained
    decision    reports → decision (used by the workers' model check too)
    transfers   newcomers copying state
    losses      workers and nodes that are gone
    quorum      whose consent it takes to decide
    takeover    a new coordinator
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
    draining,
    ending,
    failures,
    forming,
    groups,
    handover,
    losses,
    messages as m,
    nodes,
    quorum,
    takeover,
    training,
    transfers,
    view,
    waiting,
    wishes,
)
from hpresil.membership.losses import NodeLost
from hpresil.membership.messages import FromAgent, ToAgent
from hpresil.membership.state import Ending, Sealed, Settings, State, begin
from hpresil.membership.takeover import TookOver
from hpresil.membership.turn import Turn

__all__ = ["Event", "NodeLost", "Settings", "State", "Tick", "TookOver", "begin", "step"]


class Tick(m.Message, frozen=True, kw_only=True):
    """Time has passed: deadlines are looked at."""


Event = FromAgent | Tick | NodeLost | TookOver


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
        quorum.settle(turn)
        view.conclude(turn)
        draining.relent(turn)
        waiting.settle(turn)
        training.settle(turn)
        handover.trim(turn)
        draining.settle(turn)
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


def _agent_joined(turn: Turn, event: m.AgentJoined) -> None:
    nodes.joined(turn, event)
    forming.replenish(turn)


def _reached(turn: Turn, event: m.Reached) -> None:
    nodes.reached(turn, event)
    forming.replenish(turn)  # a node that joined later has room now


_SAID: dict[type[m.Message], Callable[[Turn, int, Any], None]] = {
    m.Hello: _hello,
    m.Ready: forming.ready,
    m.Report: view.reported,
    m.Committed: _committed,
    m.Finished: _finished,
    m.HandedOver: handover.handed_over,
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
    NodeLost: losses.node_lost,
    TookOver: takeover.took_over,
    m.Relayed: _relayed,
    m.WorkerStarted: _worker_started,
    m.WorkerLost: losses.worker_lost,
    m.WorkerLeft: losses.worker_left,
    m.Copied: quorum.copied,
    m.FrameSealed: _frame_sealed,
    m.Broken: _broken,
    m.DrainRequested: _drain_requested,
    m.NodeDrainRequested: wishes.drain,
    m.ResizeRequested: wishes.resize,
}


def encode_state(state: State) -> bytes:
    """Return ``state`` as MessagePack."""
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes) -> State:
    """Return the state that `encode_state` wrote."""
    return msgspec.msgpack.decode(data, type=State)
