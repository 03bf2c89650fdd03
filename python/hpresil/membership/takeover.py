"""A new coordinator takes over: from a copy of the old one's state to a view of those who are still there.

The copy may lag behind: the agents then say again what they had said since (see `client`), so what matters
here is only what nobody says again. Who is alive is known from the agents that have come; what the old
coordinator had told somebody may never have arrived. So everybody gets a new view, in whose reports the
members say where they stand, and a spare that may have missed its order to stand by is replaced.

Generations of the Kth coordinator begin at a multiple of 1000, above whatever the one before may have
installed in a corner of the network that is cut off.
"""

from __future__ import annotations

import msgspec

from hpresil.membership import ending, losses
from hpresil.membership.state import Ending, State
from hpresil.membership.turn import Turn
from hpresil.membership.worker_messages import Drain, Message, Release

BLOCK = 1000


class TookOver(Message, frozen=True, kw_only=True):
    """The coordinator on ``node`` begins its ``term``. ``alive``: the agents that came, and their processes.

    ``generation``: the newest that any of them has seen.
    """

    node: str
    term: int
    generation: int
    alive: dict[str, list[int]]


def took_over(turn: Turn, event: TookOver) -> None:
    """Begin where the copy of the state ends."""
    state = turn.state
    newest = max(state.generation, event.generation)
    old = state.host
    turn.set(term=event.term, host=event.node, generation=(newest // BLOCK + 1) * BLOCK)
    if state.phase in ("joining", "forming"):
        reason = f"the coordinator was lost with node {old} before the first step"
        ending.end(turn, Ending(status=1, reason=reason))
        return
    gone = {w.id for w in state.workers.values() if w.id not in event.alive.get(w.node, ())}
    for worker in state.workers.values():
        if worker.phase == "standby" and worker.id not in gone:
            turn.fence(worker.id, "the coordinator changed while it stood by")
        elif worker.phase == "leaving" and worker.id not in gone:
            turn.deliver(worker.id, Release())
    nodes = [name for name in state.nodes if name not in event.alive]
    losses.together(turn, gone, nodes, f"the coordinator moved from node {old} to {event.node}", regroup=True)
    if turn.state.phase == "stopping":
        ending.ask_again(turn)
    if turn.state.draining:
        for member in turn.state.members:
            turn.deliver(member, Drain())


def rebased(state: State, shift_s: float) -> State:
    """Return ``state`` with all its times moved by ``shift_s`` seconds, onto another machine's clock."""

    def moved(at: float) -> float:
        return at + shift_s

    replace = msgspec.structs.replace
    return replace(
        state,
        since=moved(state.since),
        group_lost_at=moved(state.group_lost_at),
        finishing_since=moved(state.finishing_since),
        nodes={name: replace(node, since=moved(node.since)) for name, node in state.nodes.items()},
        workers={w: replace(worker, since=moved(worker.since)) for w, worker in state.workers.items()},
        losses=tuple(replace(loss, at=moved(loss.at)) for loss in state.losses),
        ending=replace(state.ending, since=moved(state.ending.since)) if state.ending else None,
    )
