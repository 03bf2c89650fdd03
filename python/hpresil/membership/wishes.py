"""What people ask of a running job: to drain a node, to resize the group.

A wish is refused at once with the reason, or accepted: then it is answered again when it is done, or when it
turns out that it cannot be. It stays in force if whoever asked does not wait. Two wishes of one kind: to
drain a node twice is one wish with two answers; a later size replaces an earlier one.

    draining    what a node that is drained goes through
    handover    how members leave and newcomers enter
"""

from __future__ import annotations

import msgspec

from hpresil.membership import forming, nodes
from hpresil.membership.messages import Answered, NodeDrainRequested, ResizeRequested
from hpresil.membership.state import Wish
from hpresil.membership.turn import Turn

MAX_WISHES = 32


def drain(turn: Turn, message: NodeDrainRequested) -> None:
    """Take in that a node is to be drained."""
    if why := _unable(turn) or _not_drainable(turn, message.target):
        _refuse(turn, message, f"node {message.target} is not drained: {why}")
        return
    target = turn.state.nodes[message.target]
    if not target.draining:
        nodes.put(turn, msgspec.structs.replace(target, draining=True, draining_since=turn.now))
        forming.replenish(turn)  # elsewhere, in place of those that will leave
    here = sorted(w.id for w in turn.state.workers.values() if w.node == target.name)
    named = ", ".join(f"worker {worker}" for worker in here) or "no worker"
    wish = Wish(node=message.node, request=message.request, drains=target.name)
    _accept(turn, wish, f"node {target.name} is being drained: {named} will leave at the end of a step")


def resize(turn: Turn, message: ResizeRequested) -> None:
    """Take in which size the full group is to have."""
    size = message.workers
    if why := _unable(turn) or _not_possible(turn, size):
        _refuse(turn, message, f"the group is not resized to {size}: {why}")
        return
    for wish in turn.state.wishes:
        if not wish.drains:
            answer(turn, wish, f"not done: the group is resized to {size} instead", failed=True)
    before = turn.state.wanted
    turn.set(wanted=size, resizing=True)
    forming.replenish(turn)
    wish = Wish(node=message.node, request=message.request)
    _accept(turn, wish, f"the group is being resized from {before} to {size} workers")


def answer(turn: Turn, wish: Wish, text: str, *, failed: bool = False) -> None:
    """Answer a wish for the last time."""
    turn.set(wishes=tuple(other for other in turn.state.wishes if other != wish))
    _say(turn, wish.node, wish.request, text, failed=failed)


def _accept(turn: Turn, wish: Wish, text: str) -> None:
    _say(turn, wish.node, wish.request, text, done=False)
    turn.set(wishes=(*turn.state.wishes, wish))


def _refuse(turn: Turn, message: NodeDrainRequested | ResizeRequested, text: str) -> None:
    _say(turn, message.node, message.request, text, failed=True)


def _say(turn: Turn, node: str, request: int, text: str, *, done: bool = True, failed: bool = False) -> None:
    if node in turn.state.nodes:
        turn.actions.append(Answered(node=node, request=request, text=text, done=done, failed=failed))


def _unable(turn: Turn) -> str:
    """Return why no wish can be granted now, "" if it can."""
    state = turn.state
    if state.phase in ("joining", "forming") or not state.trained:
        return "the job has not begun to train; ask again when it has"
    if state.phase == "stopping" or state.draining or turn.closing():
        return "the job is about to end"
    if state.phase == "waiting":
        return f"the job waits for workers ({state.reason}); ask again when it trains"
    if len(state.wishes) >= MAX_WISHES:
        return f"{MAX_WISHES} wishes wait for their answers; ask again when one has it"
    return ""


def _not_drainable(turn: Turn, target: str) -> str:
    state = turn.state
    if target not in state.nodes:
        was = "it was drained and has left" if target in state.drained_nodes else "there is no such node"
        return f"{was}; there are: {', '.join(state.nodes)}"
    rest = [node for node in nodes.open_nodes(turn) if node.name != target]
    if not rest:
        return "no other node is there to go on; to end the job, send SIGTERM to its agent"
    places = nodes.places(turn) * len(rest)
    if places < state.settings.min_workers:
        return f"the others have room for {places} of at least {state.settings.min_workers} workers"
    return ""


def _not_possible(turn: Turn, size: int) -> str:
    state, settings = turn.state, turn.state.settings
    if size < settings.min_workers:
        return f"the job has --min-workers {settings.min_workers}"
    if size > state.slots:
        return f"a job of {state.slots} slots has work for at most {state.slots} workers"
    here = len(nodes.open_nodes(turn))
    room = here * nodes.places(turn)
    if size > room:
        where = f"{here} nodes with {nodes.places(turn)} each" if here > 1 else "one node"
        return f"there is room for {room} workers ({where}; --nproc-per-node sets it)"
    return ""
