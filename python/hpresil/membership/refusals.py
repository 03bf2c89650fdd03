"""What was turned away at a socket: counted by kind, and the first of each kind logged.

Whoever floods a socket with garbage must not fill the disk with messages about it.
"""

from __future__ import annotations

import logging
from collections import Counter

from hpresil.membership.messages import FromAgent, Relayed, WorkerLeft, WorkerLost, WorkerStarted
from hpresil.membership.state import State

log = logging.getLogger(__name__)


class Refusals:
    """Counts of what was refused. ``counts``: by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def turn_away(self, kind: str, detail: str) -> None:
        """Count one refusal of ``kind``."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("refused: %s: %s (logged once)", kind, detail)


def presumptuous(state: State, node: str, message: FromAgent) -> tuple[str, str] | None:
    """Return kind and detail of the refusal of what an agent may not say: it speaks for its own node only."""
    if getattr(message, "node", node) != node:
        return "foreign node", f"node {node!r} says {type(message).__name__} for another"
    if isinstance(message, Relayed | WorkerStarted | WorkerLost | WorkerLeft):
        known = state.workers.get(message.worker)
        if known is not None and known.node != node:
            return "foreign worker", f"node {node!r} speaks for worker {message.worker}"
    return None
