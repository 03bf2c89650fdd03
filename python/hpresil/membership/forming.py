"""The beginning of a job, and every process that is started later.

The first view waits for its seats: as many workers as the full group has. Those in reserve keep
the state the script built until the first version is installed on all members, so that they can
stand in for a seat that is lost before.

A script that fails before its first step fails in every worker, so while the job forms a failing
exit ends it. Later the same is an accident of one process: it costs one restart.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpresil.membership import ending, nodes, view
from hpresil.membership.messages import Ready, StartWorker, WorkerLost
from hpresil.membership.state import READY, Ending, Node, Worker
from hpresil.membership.turn import Turn

SET_AT_IMPORT = ("cpu.", "env.")
"""Facts that come from variables which libraries read when they are imported."""


def replenish(turn: Turn) -> None:
    """Start processes until there are as many as the job wants, as long as there is room for them.

    What a node has room for costs nothing the first time, or after a process has left; after that each
    process is a restart. Workers that are to leave with their node do not count.
    """
    state = turn.state
    if state.phase in ("joining", "stopping", "ended") or turn.closing():
        return
    settings = state.settings
    wanted = state.wanted + settings.spares - state.refused - len(state.exited)
    while _lasting(turn) < wanted:
        forming = turn.state.phase == "forming"
        seat = forming and len(_seats(turn)) < state.wanted
        node = nodes.room(turn, spare=not seat)
        if node is None:
            return
        restart = node.started >= nodes.places(turn)
        if restart:
            if turn.state.restarts >= settings.max_restarts:
                return
            turn.set(restarts=turn.state.restarts + 1)
        _start(turn, node, seat=seat, restart=restart)


def _lasting(turn: Turn) -> int:
    """Return how many workers there are that are not about to leave."""
    workers = turn.state.workers.values()
    return sum(w.phase != "leaving" and not nodes.is_draining(turn, w.node) for w in workers)


def _start(turn: Turn, node: Node, *, seat: bool, restart: bool) -> None:
    taken = {worker.index for worker in turn.state.workers.values() if worker.node == node.name}
    index = next(i for i in range(len(taken) + 1) if i not in taken)
    worker = Worker(id=turn.state.next_worker, index=index, node=node.name, since=turn.now, seat=seat)
    turn.set(next_worker=worker.id + 1)
    turn.put(worker)
    nodes.started(turn, node)
    start = StartWorker(worker=worker.id, node=node.name, index=index, spare=not seat, restart=restart)
    turn.actions.append(start)


def _seats(turn: Turn) -> list[Worker]:
    return [w for w in turn.state.workers.values() if w.seat and w.phase != "fenced"]


# --------------------------------------------------------------------------- ready


def ready(turn: Turn, worker: int, message: Ready) -> None:
    """Take in a worker that reached its step loop, for the first time or after its dry step."""
    known = turn.state.workers[worker]
    if known.phase not in ("starting", "standby"):
        return
    if not turn.state.facts:
        if not _learn(turn, worker, message.facts):
            return
    elif difference := first_difference(turn.state.facts, message.facts):
        _refuse(turn, worker, difference)
        return
    turn.update(
        worker,
        phase="ready" if message.pristine else "spare",
        since=turn.now,
        pristine=message.pristine,
        connected=True,
    )
    if message.version >= 0:
        turn.set(resumed=True)


def _learn(turn: Turn, worker: int, facts: Mapping[str, str]) -> bool:
    """Take the first worker's facts as the job's."""
    slots = facts.get("config.slots", "")
    if not slots.isdecimal() or int(slots) < 1:
        reason = f"worker {worker} says config.slots = {slots!r}; it must be a number of at least 1"
        ending.end(turn, Ending(status=1, reason=reason, worker=worker))
        return False
    turn.set(facts=dict(facts), facts_of=worker, slots=int(slots))
    return True


def first_difference(reference: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """Return the first key that differs with both values, in the reference's order; else ""."""
    for key in [*reference, *(key for key in facts if key not in reference)]:
        ours, theirs = reference.get(key), facts.get(key)
        if ours != theirs:
            return f"{key} is {_shown(theirs)} there and {_shown(ours)} here"
    return ""


def _shown(value: str | None) -> str:
    if value is None:
        return "missing"
    return repr(value if len(value) <= 200 else value[:200] + "…")


def _refuse(turn: Turn, worker: int, difference: str) -> None:
    """Keep out a worker that would compute other bits."""
    reason = f"worker {worker} differs from worker {turn.state.facts_of}: {difference}"
    if difference.startswith(SET_AT_IMPORT):
        reason += "; if the script sets it before it imports torch, start the job with --start-method spawn"
    if turn.state.phase in ("joining", "forming"):
        turn.fence(worker, reason)
        ending.end(turn, Ending(status=1, reason=f"Refused: {reason}", worker=worker))
        return
    turn.fence(worker, f"Refused: {reason}")
    turn.update(worker, refused=True)
    turn.set(refused=turn.state.refused + 1)


# --------------------------------------------------------------------------- losses while forming


def lost(turn: Turn, worker: Worker, message: WorkerLost) -> None:
    """Handle the loss of a worker before the first view; it is already taken out."""
    never_ready = worker.phase == "starting"
    if never_ready and message.reason == "exited" and message.status:
        reason = (
            f"worker {worker.id} ended with exit status {message.status} before it reached run.steps(); "
            "its log shows why"
        )
        ending.end(turn, Ending(status=message.status, reason=reason, worker=worker.id))
        return
    if never_ready and message.reason == "exited":
        turn.set(exited=(*turn.state.exited, worker.id))
        if not turn.state.workers:
            ending.end(turn, Ending(status=0, reason="script ended without using hpresil"))
        return
    place = (worker.node, worker.index)
    before = [x for x in turn.state.losses[:-1] if (x.node, x.index) == place and not x.was_ready]
    if never_ready and before:
        status = 128 - message.status if message.status is not None and message.status < 0 else 1
        reason = (
            f"worker {worker.id} was lost before it reached run.steps() ({message.reason}, status "
            f"{message.status}), like worker {before[-1].worker} in its place before; their logs show why"
        )
        ending.end(turn, Ending(status=status, reason=reason, worker=worker.id))
        return
    seats_lost(turn)


def seats_lost(turn: Turn) -> None:
    """Fill the seats of those that are gone; whoever waits in reserve is nearer than a new process."""
    _fill_seats(turn)
    replenish(turn)


def settle(turn: Turn) -> None:
    """Begin when the nodes are there; install the first view when all seats are ready, or end."""
    if turn.state.phase == "joining" and nodes.all_there(turn):
        turn.set(phase="forming", since=turn.now)
        replenish(turn)
    if turn.state.phase != "forming":
        return
    ready_ones = sorted(w.id for w in turn.state.workers.values() if w.phase in READY)
    if turn.state.exited and ready_ones:
        reason = (
            f"worker {turn.state.exited[0]} ended with exit status 0 before its first step, while worker "
            f"{ready_ones[0]} waits for it in run.steps(); every worker must run the loop"
        )
        ending.end(turn, Ending(status=1, reason=reason, worker=turn.state.exited[0]))
        return
    _fill_seats(turn)
    seats = _seats(turn)
    settings = turn.state.settings
    if len(seats) + len(turn.state.exited) < settings.min_workers:
        reason = (
            f"{len(seats)} of at least {settings.min_workers} workers are left before the first step, "
            f"and all {settings.max_restarts} restarts are used"
        )
        ending.end(turn, Ending(status=1, reason=reason))
    elif all(worker.phase in READY for worker in seats):
        order = sorted(seats, key=lambda worker: (not worker.pristine, worker.id))
        view.install(turn, [worker.id for worker in order], "all workers are ready")


def _fill_seats(turn: Turn) -> None:
    """Give seats that were lost to workers from the reserve, ready ones first."""
    missing = turn.state.wanted - len(_seats(turn))
    reserve = [w for w in turn.state.workers.values() if not w.seat and w.phase != "fenced"]
    reserve.sort(key=lambda worker: (worker.phase not in READY, worker.id))
    for worker in reserve[:missing]:
        turn.update(worker.id, seat=True)
