"""What is new in the coordinator's state, for the list of events: sizes, drained nodes, a cut network.

No sockets, no clock: states in, events out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpresil.membership import quorum
from hpresil.membership.state import State

Piece = tuple[str, dict[str, Any], str]
"""An event's name, its fields, and the same in words."""


class News:
    """Compares each state with the one before."""

    def __init__(self) -> None:
        self._last: State | None = None

    def of(self, state: State) -> list[Piece]:
        """Return what happened since the last call; nothing at the first one."""
        before, self._last = self._last, state
        if before is None:
            return []
        return [*_sizes(before, state), *_nodes(before, state), *_consent(before, state)]


def _consent(before: State, after: State) -> Iterator[Piece]:
    might, may = quorum.may_decide(before), quorum.may_decide(after)
    if might and not may:
        yield "Suspended", {"why": quorum.apart(after)}, quorum.apart(after)
    elif may and not might:
        yield "Resumed", {}, "enough nodes are back; training goes on"


def _sizes(before: State, after: State) -> Iterator[Piece]:
    asked = before.wanted != after.wanted
    if asked:
        words = f"the group is resized from {before.wanted} to {after.wanted} workers"
        yield "ResizeRequested", {"workers": after.wanted, "before": before.wanted}, words
    if (asked or before.resizing) and not after.resizing:
        words = f"the group has {after.wanted} worker{'s' * (after.wanted > 1)}, as asked for"
        yield "Resized", {"workers": after.wanted, "members": list(after.members)}, words


def _nodes(before: State, after: State) -> Iterator[Piece]:
    for node in after.nodes.values():
        was = node.name in before.nodes and before.nodes[node.name].draining
        if node.draining and not was:
            workers = sorted(w.id for w in after.workers.values() if w.node == node.name)
            yield (
                "NodeDraining",
                {"node": node.name, "workers": workers},
                f"node {node.name} is being drained",
            )
        elif was and not node.draining:
            yield "NodeDrainGivenUp", {"node": node.name}, f"node {node.name} is not drained: it is needed"
    for name in after.drained_nodes:
        if name not in before.drained_nodes:
            stays = name in after.nodes
            words = f"node {name} is drained" + ("; its agent stays with the coordinator" if stays else "")
            yield "NodeDrained", {"node": name, "agent_stays": stays}, words
