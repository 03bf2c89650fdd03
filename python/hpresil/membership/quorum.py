"""Whose consent it takes to decide, so that of two coordinators one at most does.

An agent is bound to one coordinator at a time, and never goes back to an older one than it was bound to. The
*quorum* is a set of nodes:

* the coordinator that is in office decides while at least half of the quorum is bound to it,
* a new one begins once more than half are bound to it, none of them with a newer copy of the state.

Both at once is impossible. So with two nodes the coordinator goes on alone if the other is lost, and if its
own node is lost the job ends, unless a lease stands in for the quorum (`Settings.leased`): a lock on a
shared file that the coordinator holds as long as it lives.

The quorum follows the nodes that are there. A change is *proposed* with a copy of the state to every agent,
and counts once at least half of the old quorum and half of the new one have it: from then on every majority
of the old one has somebody in it who knows of the new one. A candidate that sees a proposal needs both
majorities. (The idea is that of joint consensus in Raft: Ongaro and Ousterhout 2014, section 6.)
"""

from __future__ import annotations

from collections.abc import Collection

from hpresil.membership.agent_messages import Copied
from hpresil.membership.state import State
from hpresil.membership.turn import Turn


def may_decide(state: State) -> bool:
    """Return whether the coordinator in office may decide."""
    return state.settings.leased or _half(state.quorum, state.nodes)


def wins(state: State, voters: Collection[str]) -> bool:
    """Return whether a candidate with the newest copy ``state`` is elected by ``voters``."""
    quorums = [nodes for nodes in (state.quorum, state.proposed) if nodes]
    return bool(quorums) and all(2 * _among(nodes, voters) > len(nodes) for nodes in quorums)


def settle(turn: Turn) -> None:
    """Propose the nodes that are there as the next quorum, and install it once enough agents have it."""
    state = turn.state
    if state.phase in ("joining", "forming", "ended"):
        return
    there = tuple(sorted(state.nodes))
    if not state.quorum:
        turn.set(quorum=there)
    elif there != (state.proposed or state.quorum):
        turn.set(proposed=there, proposal=state.proposal + 1, agreed=(state.host,))
    state = turn.state
    if state.proposed and _half(state.quorum, state.agreed) and _half(state.proposed, state.agreed):
        turn.set(quorum=state.proposed, proposed=(), agreed=())


def copied(turn: Turn, message: Copied) -> None:
    """Note that an agent holds a copy of the state with the proposal in it."""
    state = turn.state
    same = (message.term, message.proposal) == (state.term, state.proposal)
    if state.proposed and same and message.node not in state.agreed:
        turn.set(agreed=(*state.agreed, message.node))


def apart(state: State) -> str:
    """Return why the coordinator may not decide, in words."""
    missing = sorted(set(state.quorum) - set(state.nodes))
    named = ", ".join(missing)
    return (
        f"cut off from {len(missing)} of {len(state.quorum)} nodes ({named}); less than half are left, so "
        "nothing is committed here until they are back"
    )


def _half(nodes: Collection[str], those: Collection[str]) -> bool:
    return 2 * _among(nodes, those) >= len(nodes)


def _among(nodes: Collection[str], those: Collection[str]) -> int:
    return len(set(nodes) & set(those))
