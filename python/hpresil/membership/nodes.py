"""The agents of the job: who is there, whether they all reach each other, and who has room for a process.

With one node there is nothing to check. With several, every agent tries to reach every other before it is
given workers, so that a firewall is found at the start and named, not met in the first recovery. A pair
that fails at the start of the job ends it; a node that joins later and fails is sent away.

A node is *open* if all others reach it and it is not to be drained: only there are processes started.
"""

from __future__ import annotations

import msgspec

from hpresil.membership import ending
from hpresil.membership.messages import AgentJoined, Probe, Reached, Rejected, Roster
from hpresil.membership.state import Ending, Node
from hpresil.membership.turn import Turn


def joined(turn: Turn, message: AgentJoined) -> None:
    """Take in an agent, and have it and the others try to reach each other."""
    state = turn.state
    if message.node in state.nodes or state.phase in ("stopping", "ended"):
        return
    others = {node.name: node.address for node in state.nodes.values()}
    node = Node(
        name=message.node,
        order=state.joined,
        address=message.address,
        since=turn.now,
        unproven=tuple(others),
        untried=tuple(others),
    )
    turn.set(
        nodes={**state.nodes, node.name: node},
        joined=state.joined + 1,
        drained_nodes=tuple(name for name in state.drained_nodes if name != node.name),
    )
    if others:
        turn.actions.append(Probe(node=node.name, addresses=others))
        for other in others:
            turn.actions.append(Probe(node=other, addresses={node.name: node.address}))


def reached(turn: Turn, message: Reached) -> None:
    """Take in which other agents an agent could reach; what it says of one that came anew is too old."""
    nodes = turn.state.nodes
    tried = [node for node, where in message.tried.items() if node in nodes and nodes[node].address == where]
    if message.node not in nodes:
        return
    for other in tried:
        if other in message.failed:
            _apart(turn, message.node, other, message.failed[other])
            return
    for other in tried:
        put(turn, _without(turn.state.nodes[other], unproven=message.node))
        put(turn, _without(turn.state.nodes[message.node], untried=other))


def _apart(turn: Turn, one: str, other: str, error: str) -> None:
    """Two agents do not reach each other."""
    reason = f"the agent of node {one} does not reach that of node {other}: {error}"
    if turn.state.phase == "joining":
        ending.end(turn, Ending(status=1, reason=f"{reason}; check firewalls and --node-addr"))
        return
    late = max((turn.state.nodes[name] for name in (one, other)), key=lambda node: node.order)
    turn.actions.append(Rejected(node=late.name, reason=reason))
    forget(turn, late.name)


def forget(turn: Turn, name: str) -> None:
    """Take a node out, also of what the others still have to prove."""
    nodes = {node.name: node for node in turn.state.nodes.values() if node.name != name}
    for node in nodes.values():
        nodes[node.name] = _without(node, unproven=name, untried=name)
    sealed = {node: sealed for node, sealed in turn.state.sealed.items() if node != name}
    turn.set(nodes=nodes, sealed=sealed)


def all_there(turn: Turn) -> bool:
    """Return whether as many nodes as the first view waits for are there and reach each other."""
    return len(_proven(turn)) >= turn.state.settings.nnodes


def announce(turn: Turn) -> None:
    """Tell all agents where everybody is; before a view, and only if there ever was more than one.

    Also when one alone is left: it would take what it does not know, a process started since, for another's.
    """
    if turn.state.joined > 1:
        workers = {worker.id: worker.node for worker in turn.state.workers.values()}
        addresses = {node.name: node.address for node in turn.state.nodes.values()}
        roster = Roster(generation=turn.state.generation, workers=workers, addresses=addresses)
        turn.actions.append(roster)


def places(turn: Turn) -> int:
    """Return how many processes a node takes."""
    settings = turn.state.settings
    return settings.places or settings.workers + settings.spares


def open_nodes(turn: Turn) -> list[Node]:
    """Return the nodes on which processes may be started and stay."""
    return [node for node in _proven(turn) if not node.draining]


def is_draining(turn: Turn, name: str) -> bool:
    """Return whether a node is there and to be drained."""
    return name in turn.state.nodes and turn.state.nodes[name].draining


def members_to_drain(turn: Turn) -> set[int]:
    """Return the members that are on a node that is to be drained."""
    state = turn.state
    return {m for m in state.members if is_draining(turn, state.workers[m].node)}


def room(turn: Turn, *, spare: bool) -> Node | None:
    """Return the node that should get the next process: the emptiest; spares stand on distinct nodes."""
    here: dict[str, list[bool]] = {node.name: [] for node in open_nodes(turn)}
    for worker in turn.state.workers.values():
        if worker.node in here:
            here[worker.node].append(worker.seat or worker.phase == "member")
    free = [name for name, seats in here.items() if len(seats) < places(turn)]

    def fullness(name: str) -> tuple[int, int, int]:
        reserve = here[name].count(False) if spare else 0
        return reserve, len(here[name]), turn.state.nodes[name].order

    return turn.state.nodes[min(free, key=fullness)] if free else None


def started(turn: Turn, node: Node) -> None:
    """Count a process that is started there."""
    put(turn, msgspec.structs.replace(turn.state.nodes[node.name], started=node.started + 1))


def ended(turn: Turn, node: Node) -> None:
    """A process that was not needed any more has ended there: another one is no restart."""
    put(turn, msgspec.structs.replace(node, started=max(0, node.started - 1)))


def _proven(turn: Turn) -> list[Node]:
    return [node for node in turn.state.nodes.values() if not node.unproven and not node.untried]


def _without(node: Node, *, unproven: str = "", untried: str = "") -> Node:
    return msgspec.structs.replace(
        node,
        unproven=tuple(name for name in node.unproven if name != unproven),
        untried=tuple(name for name in node.untried if name != untried),
    )


def put(turn: Turn, node: Node) -> None:
    """Replace a node."""
    turn.set(nodes={**turn.state.nodes, node.name: node})
