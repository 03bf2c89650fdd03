"""What agents of other nodes tell the coordinator's node, written down in the words and times of the job."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from hpresil.base.deadline import now
from hpresil.base.errors import DataError, Divergence
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle
from hpresil.launch.terminal import Terminal
from hpresil.membership import messages as m
from hpresil.membership.state import State
from hpresil.telemetry.clocks import Comparison

log = logging.getLogger(__name__)
RESERVED = frozenset({"t", "wall", "event", "name", "self"})
TIMES = frozenset({"last_stamp"})
"""Fields of events that are times of the node they come from."""


class Scribe:
    """Writes into a chronicle.

    Args:
        chronicle: Where to.
        picture: This agent's.
        terminal: Told of nodes that come and go.
        broken: Called when what a worker reports cannot be.

    Attributes:
        shift_s: What to add to this machine's monotonic clock to have the one that events are told by.
    """

    def __init__(
        self, chronicle: Chronicle, picture: Picture, terminal: Terminal, broken: Callable[[m.Broken], None]
    ) -> None:
        self.shift_s = 0.0
        self._chronicle, self._picture, self._terminal = chronicle, picture, terminal
        self._broken = broken
        self._agents: dict[str, int] = {}
        self._clocks: dict[str, Comparison] = {}

    def heard(self, node: str, message: m.FromAgent) -> None:
        """Write down what an agent of another node says."""
        match message:
            case m.AgentJoined():
                self.knows(node, message)
                self._chronicle.event("NodeJoined", node=node, pid=message.pid, address=message.address)
                self._terminal.say(f"node {node} joined ({message.address})")
            case m.Alive(at=at):
                self._alive(node, at)
            case m.Noted():
                self._noted(node, message)
            case m.Relayed(worker=worker, said=m.Committed() as committed):
                self._committed(worker, committed)
            case m.Relayed(said=m.Logged() as logged):
                self._chronicle.logged(logged)

    def knows(self, node: str, joined: m.AgentJoined) -> None:
        """Begin to compare the clock of an agent with ours."""
        self._agents[node], self._clocks[node] = joined.pid, Comparison()

    def node_lost(self, state: State, node: str, why: str) -> None:
        """Write down that a node is lost, and its workers with it."""
        workers = [w.id for w in state.workers.values() if w.node == node]
        self._chronicle.event("NodeLost", node=node, workers=workers, why=why)
        for worker in workers:
            self._chronicle.event(
                "WorkerLost",
                worker=worker,
                rank=self._picture.rank(worker),
                reason="node lost",
                status=None,
                step=self._picture.step + 1,
                slot=-1,
                armed=False,
                last_stamp=None,
                why=f"node {node} lost",
                node=node,
            )
        named = ", ".join(f"worker {worker}" for worker in workers) or "no worker"
        self._terminal.say(f"node {node} lost with {named}: {why}")

    def _alive(self, node: str, at: float) -> None:
        """Compare that node's clock with ours, by which all events are told."""
        offset_s = self._clocks[node].heard(at, now() + self.shift_s) if node in self._clocks else None
        if offset_s is not None and math.isfinite(offset_s):
            self._chronicle.event("ClockCompared", node=node, pid=self._agents[node], offset_s=offset_s)

    def _noted(self, node: str, noted: m.Noted) -> None:
        """Write down an event of another node; whatever an agent says, it is a line of ours or none."""
        fields = {key: value for key, value in noted.fields.items() if key not in RESERVED}
        for name in TIMES & fields.keys():
            if isinstance(fields[name], float) and math.isfinite(noted.at):
                fields[name] += now() + self.shift_s - noted.at
        try:
            self._chronicle.event(noted.event, **{**fields, "node": node})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            log.warning("event %.100r of node %s cannot be written: %r", noted.event, node, error)

    def _committed(self, worker: int, committed: m.Committed) -> None:
        try:
            self._chronicle.committed(worker, committed)
        except (Divergence, DataError, ValueError, OverflowError) as error:
            sound = isinstance(error, DataError)
            reason = str(error) if sound else f"{type(error).__name__}: {error}"
            self._broken(m.Broken(reason=reason, worker=worker, step=committed.step, sound=sound))
