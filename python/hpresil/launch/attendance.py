"""What the agent does when a worker starts, breaks, hangs, or ends.

A worker that ends is *lost*, and the coordinator is told, unless it *leaves*: it had been released, or
the job has ended. A script that fails after its last step fails the job: its exit status becomes the
job's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from hpresil.base import spans
from hpresil.comm import watchdog
from hpresil.launch.conversation import Conversation
from hpresil.launch.failures import Failures, ending_words
from hpresil.launch.guard import Guard
from hpresil.launch.hang import Hang
from hpresil.launch.job import Job
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle
from hpresil.launch.start_method import ForkServer
from hpresil.launch.terminal import Terminal
from hpresil.launch.worker_environment import Place, Premises, command, environment, shared_environment
from hpresil.launch.workers import Gone, Start, WorkerProcess, Workers
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.native import Page
from hpresil.telemetry.trace import TraceKeeper

log = logging.getLogger(__name__)
RESTART_DELAY_S = 0.5
DISOWNED = "the coordinator went on without it"


class Attendance:
    """The comings and goings of one job's workers."""

    def __init__(
        self,
        job: Job,
        premises: Premises,
        *,
        guard: Guard,
        picture: Picture,
        progress: Chronicle,
        traces: TraceKeeper,
        failures: Failures,
        terminal: Terminal,
        client: Client,
        over: Callable[[], bool],
    ) -> None:
        self._job, self._premises = job, premises
        self._picture, self._progress, self._traces = picture, progress, traces
        self._failures, self._terminal, self._client = failures, terminal, client
        self._over = over
        self._why: dict[int, str] = {}
        self._starting: dict[asyncio.Task[None], int] = {}
        self._disowned: set[int] = set()
        self._restarts = 0
        self.exit_status = 0
        """Of the first script that failed after its last step."""
        self._environment = shared_environment(job, premises, os.environ)
        for said in watchdog.contradictions(self._environment):
            terminal.warn(said)
        self._fork_server: ForkServer | None = None
        if job.start_method == "forkserver" and job.kind != "program":
            log = premises.log_dir / "fork-server.log"
            self._fork_server = ForkServer(command(job), self._environment, log, guard)
        self.workers = Workers(guard, self.gone, self.reaped, self._fork_server)
        self.conversation: Conversation

    def start(self, message: m.StartWorker) -> None:
        """Start a process, as the coordinator says; one in place of a lost worker a little later.

        A new process takes processor time, which a recovery that is under way needs now.
        """
        self._disowned.discard(message.worker)  # another coordinator may give a number again
        if message.worker < self._job.workers + self._job.spares:
            delay_s = 0.0
        else:
            delay_s = RESTART_DELAY_S
            self._restarts += message.restart
        task = asyncio.get_running_loop().create_task(self._start(message, delay_s))
        self._starting[task] = message.worker
        task.add_done_callback(self._start_ended)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting.pop(task, None)
        if not task.cancelled():
            task.result()  # an exception is a defect, and the event loop's handler hears of it

    def start_no_more(self) -> None:
        """Forget the processes that are being started; what exists of them already ends by itself."""
        for task in self._starting:
            task.cancel()
        self.workers.calm.close()
        if self._fork_server is not None:
            self._fork_server.close()

    async def _start(self, message: m.StartWorker, delay_s: float) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)
            await self.workers.calm.wait()
        if self._over():
            return
        if message.worker in self._picture.released:
            self._client.say(m.WorkerLeft(worker=message.worker))
            return
        begin_ns = spans.clock()
        name = f"worker-{message.worker}"
        try:
            with self._traces.lent(name, message.worker) as trace_fd:
                worker = await self.workers.start(self._described(message, name, trace_fd))
            spans.add("start worker", begin_ns, value=message.worker)
        except OSError as error:
            self._terminal.say(f"worker {message.worker} cannot be started: {error}")
            self._client.say(m.WorkerLost(worker=message.worker, reason="killed"))
            return
        self._progress.event(
            "WorkerStarted",
            worker=worker.id,
            index=worker.index,
            pid=worker.pid,
            spare=worker.spare,
            start_method=worker.start_method,
        )
        self._client.say(m.WorkerStarted(worker=worker.id, node=self._premises.node, pid=worker.pid))
        self.conversation.started(worker)
        if worker.id in self._disowned:
            self.end(worker.id, DISOWNED)
        if message.worker in self._picture.released:  # while it was being started
            self.end(message.worker, "it is not needed any more")

    def _described(self, message: m.StartWorker, name: str, trace_fd: int) -> Start:
        return Start(
            worker=message.worker,
            index=message.index,
            spare=message.spare,
            command=command(self._job),
            log=self._premises.log_dir / f"{name}.log",
            fds=(trace_fd, *self._premises.arena_fds),
            env=lambda page: environment(self._environment, self._place(message, page, trace_fd)),
        )

    def _place(self, message: m.StartWorker, page: Page, trace_fd: int) -> Place:
        return Place(
            worker=message.worker,
            index=message.index,
            restarts=self._restarts,
            page_fd=page.fd,
            trace_fd=trace_fd,
            # A later one would come with a version that the others have left behind: it copies instead.
            resume=None if message.spare else self._premises.resume,
        )

    def alive(self) -> list[int]:
        """Return the workers that live or are being started."""
        return sorted({*self._starting.values(), *(worker.id for worker in self.workers.live())})

    def keep(self, known: list[int]) -> None:
        """Kill the workers that the coordinator does not know any more; for it they were lost before."""
        for worker in set(self.alive()) - set(known):
            self._disowned.add(worker)
            self.end(worker, DISOWNED)

    def end(self, worker: int, why: str, reason: str = "killed") -> None:
        """Kill a live worker; ``why`` is for people, ``reason`` for the coordinator."""
        found = self.workers.get(worker)
        if found is not None:
            self._why[worker] = why
            self.workers.kill(found, reason, why)

    def hung(self, worker: WorkerProcess, hang: Hang) -> None:
        """Kill a worker that hangs."""
        self.end(worker.id, str(hang), "hung")

    def spared(self, hang: Hang, reason: str) -> None:
        """Tell of a worker that seems to hang and must live."""
        self._progress.event("Suspected", worker=hang.worker, why=str(hang), spared=reason)
        self._terminal.say(f"{self._picture.name(hang.worker)}: {hang}; it is not killed: {reason}")

    def gone(self, worker: WorkerProcess, gone: Gone) -> None:
        """Tell everybody that a worker's end was noticed."""
        if worker.id in self._picture.released or self._over():
            self._left(worker, gone)
        else:
            self._lost(worker, gone)
        self.conversation.gone(worker)

    def _lost(self, worker: WorkerProcess, gone: Gone) -> None:
        if worker.id in self._disowned:
            log.info("worker %d: %s", worker.id, DISOWNED)
            return
        if self._picture.rank(worker.id) >= 0:
            self.workers.calm.lost()
        self._client.say(
            m.WorkerLost(
                worker=worker.id,
                reason=gone.reason,
                status=gone.status,
                step=gone.step,
                slot=gone.slot,
                armed=gone.armed,
            )
        )
        why = self._why.pop(worker.id, "")
        self._failures.lost(worker, gone, why)
        self._progress.event(
            "WorkerLost",
            worker=worker.id,
            rank=self._picture.rank(worker.id),
            reason=gone.reason,
            status=gone.status,
            step=gone.step,
            slot=gone.slot,
            armed=gone.armed,
            last_stamp=gone.page.stamp_ns / 1e9 if gone.page.stamps else None,
            why=why or ending_words(gone),
            stacks=str(worker.stacks_file) if gone.reason == "hung" else None,
        )

    def _left(self, worker: WorkerProcess, gone: Gone) -> None:
        status = gone.status
        # What a spare ends with does not matter: the job did not need it.
        member = self._picture.rank(worker.id) >= 0 and worker.id in self._picture.released
        if member and status and not worker.condemned and not self.exit_status:
            self.exit_status = status if status > 0 else 128 - status
            self._failures.lost(worker, gone, "it failed after its last step")
        self._progress.event("WorkerLeft", worker=worker.id, status=status)
        if not self._over():
            self._client.say(m.WorkerLeft(worker=worker.id, status=status))

    def reaped(self, worker: WorkerProcess, status: int) -> None:
        """Note that the kernel has finished with a worker."""
        self.conversation.reaped(worker)
        self._traces.ended(worker.id)
