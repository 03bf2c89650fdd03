"""Workers and nodes that are lost: remembered, taken out, and what follows in each phase of the job."""

from __future__ import annotations

from collections.abc import Collection

from hpresil.membership import draining, ending, failures, forming, nodes, quorum, view
from hpresil.membership.agent_messages import WorkerLeft, WorkerLost
from hpresil.membership.state import KEPT_LOSSES, Loss, Worker
from hpresil.membership.turn import Turn
from hpresil.membership.worker_messages import Message


class NodeLost(Message, frozen=True, kw_only=True):
    """The connection to the agent of ``node`` is gone, and so is everything on that node."""

    node: str
    why: str


def worker_lost(turn: Turn, event: WorkerLost) -> None:
    """Take in that one worker is dead."""
    worker = turn.state.workers.get(event.worker)
    if worker is None:
        return
    if worker.phase == "leaving":
        draining.left(turn, worker)
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


def worker_left(turn: Turn, event: WorkerLeft) -> None:
    """Take in that one worker has ended by itself, as it was told or not."""
    worker = turn.state.workers.get(event.worker)
    if worker is not None and worker.phase == "leaving":
        draining.left(turn, worker)
    elif worker is not None:  # nobody has released it
        worker_lost(turn, WorkerLost(worker=worker.id, reason="exited", status=event.status))


def node_lost(turn: Turn, event: NodeLost) -> None:
    """Take in that an agent is gone, with all its workers."""
    if event.node in turn.state.nodes:
        lost = {w.id for w in turn.state.workers.values() if w.node == event.node}
        together(turn, lost, [event.node], f"node {event.node} lost ({event.why})")


def together(
    turn: Turn, lost: Collection[int], lost_nodes: Collection[str], why: str, *, regroup: bool = False
) -> None:
    """Take out workers and nodes at once, so that there is one view without them, not several.

    ``regroup``: there is a new view even if no member is lost; who saves before the end is asked anew.
    """
    members = turn.state.members
    seats = [None if member in lost else member for member in members]
    workers = [turn.state.workers[worker] for worker in sorted(lost)]
    for worker in workers:
        if worker.phase != "leaving":
            _remember(turn, worker, WorkerLost(worker=worker.id, reason="node lost"))
        turn.remove(worker.id)
    for node in lost_nodes:
        nodes.forget(turn, node)
    if turn.state.phase == "stopping":
        for worker in workers if not regroup else ():
            ending.lost(turn, worker.id, why)
    elif turn.state.phase == "forming":
        if not nodes.all_there(turn):
            turn.set(phase="joining", since=turn.now)
        forming.seats_lost(turn)
    elif turn.state.phase != "joining":
        # Members that are whole but cut off from the other nodes must stop too: they wait in a new view.
        if regroup or None in seats or not quorum.may_decide(turn.state):
            view.seats_lost(turn, seats, why)
        forming.replenish(turn)


def _remember(turn: Turn, worker: Worker, event: WorkerLost) -> None:
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
