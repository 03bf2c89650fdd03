"""A node that is drained: its workers leave, then its agent.

The agent of the node in which the coordinator lives stays, without workers. A drain is given up when the job
needs the node, which then is as good as any: no other one is left, the job waits for workers, or no group
could be formed elsewhere in time.
"""

from __future__ import annotations

import msgspec

from hpresil.membership import forming, handover, nodes
from hpresil.membership.messages import Dismissed
from hpresil.membership.state import Node, Worker
from hpresil.membership.turn import Turn
from hpresil.membership.wishes import answer


def relent(turn: Turn) -> None:
    """Give up drains if the job needs every node it has."""
    state = turn.state
    if state.phase == "waiting":
        why = f"the job waits for workers ({state.reason})"
    elif state.phase in ("regrouping", "training") and not nodes.open_nodes(turn):
        why = "no other node is left"
    else:
        return
    for node in [node for node in state.nodes.values() if node.draining]:
        _give_up(turn, node, why)


def settle(turn: Turn) -> None:
    """Do what the new state calls for: let nodes go, answer wishes."""
    if turn.state.phase not in ("regrouping", "training"):
        return
    for node in [node for node in turn.state.nodes.values() if node.draining]:
        if not any(worker.node == node.name for worker in turn.state.workers.values()):
            _drained(turn, node)
    for wish in turn.state.wishes:
        if wish.drains and wish.drains not in turn.state.nodes:
            answer(turn, wish, f"node {wish.drains} was lost while it was drained", failed=True)
    _resized(turn)


def _give_up(turn: Turn, node: Node, why: str) -> None:
    """Go on with a node that should have been drained."""
    nodes.put(turn, msgspec.structs.replace(node, draining=False))
    turn.set(drained_nodes=tuple(name for name in turn.state.drained_nodes if name != node.name))
    for wish in [wish for wish in turn.state.wishes if wish.drains == node.name]:
        answer(turn, wish, f"node {node.name} is not drained: {why}", failed=True)
    forming.replenish(turn)


def _drained(turn: Turn, node: Node) -> None:
    first = node.name not in turn.state.drained_nodes
    if first:
        turn.set(drained_nodes=(*turn.state.drained_nodes, node.name))
    text = f"node {node.name} is drained"
    stays = f"{text}; its agent stays without workers, because the coordinator lives in it"
    for wish in [wish for wish in turn.state.wishes if wish.drains == node.name]:
        answer(turn, wish, stays if node.name == turn.state.host else text)
    if node.name != turn.state.host:
        turn.actions.append(Dismissed(node=node.name, reason=f"{text}: its workers have left the job"))
        nodes.forget(turn, node.name)


def _resized(turn: Turn) -> None:
    """Note that the group has the size that was asked for, and nobody beyond it is left."""
    state = turn.state
    settled = state.phase == "training" and not state.restoring and not turn.closing()
    if not state.resizing or not settled or len(state.members) != state.wanted:
        return
    if handover.leaving(turn) or any(w.phase == "leaving" for w in state.workers.values()):
        return
    turn.set(resizing=False)
    for wish in [wish for wish in state.wishes if not wish.drains]:
        answer(turn, wish, f"the group has {state.wanted} worker{'s' * (state.wanted > 1)}")


def left(turn: Turn, worker: Worker) -> None:
    """A worker that was released has ended; its place is free, and what comes there is no restart."""
    turn.remove(worker.id)
    if worker.node in turn.state.nodes:
        nodes.ended(turn, turn.state.nodes[worker.node])
    forming.replenish(turn)


def tick(turn: Turn) -> None:
    """Give up a drain for which no group could be formed elsewhere in time."""
    limit_s = turn.state.settings.join_timeout_s
    for node in [node for node in turn.state.nodes.values() if node.draining]:
        late = turn.now - node.draining_since >= limit_s
        if late and nodes.members_to_drain(turn) and not handover.enough_stay(turn):
            _give_up(turn, node, f"not enough workers were ready elsewhere within {limit_s:g} s")
