"""What only one node has: the coordinator, and the files in which the whole job is written down."""

from __future__ import annotations

import logging
import math
from contextlib import AsyncExitStack
from pathlib import Path

from hpresil.base.deadline import now
from hpresil.base.errors import DataError, Divergence
from hpresil.launch.job import Job
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Progress
from hpresil.launch.run_directory import RunDirectory
from hpresil.launch.terminal import Terminal
from hpresil.membership import messages as m
from hpresil.membership.server import Server
from hpresil.membership.state import Settings
from hpresil.telemetry.clocks import Comparison
from hpresil.telemetry.record import Recorder

log = logging.getLogger(__name__)
RESERVED = frozenset({"t", "wall", "event", "name", "self"})
TIMES = frozenset({"last_stamp"})
"""Fields of events that are times of the node they come from."""


class Hosting:
    """The coordinator of a job, and its chronicle.

    Args:
        job: What to run.
        directory: The run directory.
        resume: The version to resume from; None: it is a new job.
        picture: This agent's.
        terminal: Told of nodes that come and go.
    """

    def __init__(
        self,
        job: Job,
        directory: RunDirectory,
        resume: int | None,
        picture: Picture,
        terminal: Terminal,
    ) -> None:
        self._job, self._directory, self._resume = job, directory, resume
        self._picture, self._terminal = picture, terminal
        self._agents: dict[str, int] = {}
        self._clocks: dict[str, Comparison] = {}

    async def open(self, socket: Path, stack: AsyncExitStack) -> None:
        """Open the files and start the coordinator; ``stack`` takes both down again."""
        job, directory = self._job, self._directory
        recorder = Recorder(job.record, self._resume or 0)
        self.progress = Progress(directory, recorder, self._picture, self._terminal.warn)
        stack.callback(self.progress.close)
        self.server = Server(
            socket,
            self._settings(),
            journal_path=directory.journal,
            listen=job.cluster.listen() if job.cluster else None,
            on_said=self._heard,
            on_lost=self._node_lost,
            refusals=self._picture.refusals,
        )
        stack.push_async_callback(self.server.close)
        await self.server.start()

    def begun(self) -> None:
        """Write the first event."""
        job = self._job
        self.progress.event(
            "JobStarted",
            run_id=job.run_id,
            workers=job.workers,
            spares=job.spares,
            min_workers=job.min_workers,
            command=list(job.command),
        )

    def _settings(self) -> Settings:
        job, config = self._job, self._job.config
        places = 0
        if job.cluster is not None:
            share = -(-(job.workers + job.spares) // job.cluster.max_nodes)
            places = max(job.nproc_per_node, share)
        return Settings(
            workers=job.workers,
            nnodes=job.cluster.nnodes if job.cluster else 1,
            places=places,
            spares=job.spares,
            min_workers=job.min_workers,
            max_restarts=job.max_restarts,
            min_workers_timeout_s=config.min_workers_timeout_s,
            join_timeout_s=config.join_timeout_s,
            save_timeout_s=config.save_timeout_s,
            report_timeout_s=1.5 * config.outside_timeout_s,
            restore_timeout_s=config.restore_timeout_s,
            save_directory=str(self._directory.checkpoints),
            first_generation=self._directory.earlier_generation() if self._resume is not None else 0,
            resumed=self._resume is not None,
        )

    def _heard(self, node: str, message: m.FromAgent) -> None:
        """Write down what an agent of another node says; this node's own writes directly."""
        if self._job.cluster is None or node == self._job.cluster.node:
            return
        match message:
            case m.AgentJoined():
                self._agents[node], self._clocks[node] = message.pid, Comparison()
                self.progress.event("NodeJoined", node=node, pid=message.pid, address=message.address)
                self._terminal.say(f"node {node} joined ({message.address})")
            case m.Alive(at=at):
                self._alive(node, at)
            case m.Noted():
                self._noted(node, message)
            case m.Relayed(worker=worker, said=m.Committed() as committed):
                self._committed(worker, committed)
            case m.Relayed(said=m.Logged() as logged):
                self.progress.logged(logged)

    def _alive(self, node: str, at: float) -> None:
        """Compare that node's clock with ours, by which all events are told."""
        offset_s = self._clocks[node].heard(at, now()) if node in self._clocks else None
        if offset_s is not None and math.isfinite(offset_s):
            self.progress.event("ClockCompared", node=node, pid=self._agents[node], offset_s=offset_s)

    def _noted(self, node: str, noted: m.Noted) -> None:
        """Write down an event of another node; whatever an agent says, it is a line of ours or none."""
        fields = {key: value for key, value in noted.fields.items() if key not in RESERVED}
        for name in TIMES & fields.keys():
            if isinstance(fields[name], float) and math.isfinite(noted.at):
                fields[name] += now() - noted.at
        try:
            self.progress.event(noted.event, **{**fields, "node": node})
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            log.warning("event %.100r of node %s cannot be written: %r", noted.event, node, error)

    def _node_lost(self, node: str, why: str) -> None:
        """Write down that another node is lost: the end of this agent's own connection is the job's."""
        if self._job.cluster is None or node == self._job.cluster.node:
            return
        workers = [w.id for w in self.server.state.workers.values() if w.node == node]
        if self.server.state.phase != "ended":
            self.progress.event("NodeLost", node=node, workers=workers, why=why)
            for worker in workers:
                self.progress.event(
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

    def _committed(self, worker: int, committed: m.Committed) -> None:
        try:
            self.progress.committed(worker, committed)
        except (Divergence, DataError, ValueError, OverflowError) as error:
            sound = isinstance(error, DataError)
            reason = str(error) if sound else f"{type(error).__name__}: {error}"
            self.server.break_off(m.Broken(reason=reason, worker=worker, step=committed.step, sound=sound))
