"""The agent: the one hpresil process of a node that outlives its workers.

It hosts the coordinator (in the same process, but spoken to through a socket), starts the workers, hears
what they say, notices their ends, owns the snapshot memory, and ends the job. One event loop in the main
thread; what can block has threads of its own.

Every end takes the same way out: workers that may leave get time, the others are killed with everything
they started; sockets and the guardian go last. If the agent itself is killed, the guardian does this.

    first SIGINT, SIGTERM or SIGHUP    the job is drained: finish the step, save, leave with status 0
    a second one, or SIGQUIT           everything is killed, status 128 + signal
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from hpresil.launch import kernel, status
from hpresil.launch.attendance import Attendance
from hpresil.launch.conversation import Conversation, Hands
from hpresil.launch.failures import Failures
from hpresil.launch.farewell import Farewell
from hpresil.launch.frame_traffic import FrameTraffic, Ways
from hpresil.launch.guard import Guard
from hpresil.launch.hosting import Hosting, House
from hpresil.launch.job import Job
from hpresil.launch.links import Links
from hpresil.launch.memory import Arenas
from hpresil.launch.network import Ground, Network
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle
from hpresil.launch.run_directory import RunDirectory, SocketDirectory
from hpresil.launch.scrapes import Scrapes
from hpresil.launch.succession import Office
from hpresil.launch.terminal import Terminal
from hpresil.launch.watch import Watch
from hpresil.launch.worker_environment import Premises
from hpresil.membership import messages as m
from hpresil.telemetry import trace

log = logging.getLogger(__name__)
DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Agent:
    """Runs one job on this node.

    Args:
        job: What to run.
        directory: The run directory, locked; closed by the caller.
        resume: The checkpoint to start from, and its version.
        scrapes: Shows the job to Prometheus.
    """

    def __init__(
        self, job: Job, directory: RunDirectory, resume: tuple[Path, int] | None, scrapes: Scrapes
    ) -> None:
        self._job, self._directory, self._resume, self._scrapes = job, directory, resume, scrapes
        self._node = job.cluster.node if job.cluster else socket.gethostname()
        self._picture = Picture()
        self._network = Network(self._node, job.cluster, self._picture.refusals)
        self._client = self._network.client
        self._frames: FrameTraffic
        self._signals = self._kill_status = 0

    async def run(self) -> int:
        """Run the job to its end and return the exit status."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[m.JobEnded] = self._loop.create_future()
        self._loop.set_exception_handler(self._defect)
        kernel.adopt_orphans()
        async with AsyncExitStack() as stack:
            await self._set_up(stack)
            for number in (*DRAIN_SIGNALS, signal.SIGQUIT):
                self._loop.add_signal_handler(number, self._signalled, number)
            server = self._hosting.server
            await self._network.join(self._frames, self._arenas, self._ground(), server, stack)
            self._work(self._listen(), stack)
            self._announce()
            return await self._finish(await self._ended)

    # ------------------------------------------------------------------ beginning

    async def _set_up(self, stack: AsyncExitStack) -> None:
        """Make all parts; ``stack`` takes them down again, the last one first."""
        job, directory = self._job, self._directory
        self._terminal = Terminal(quiet=job.cluster is not None and not job.cluster.hosts)
        stack.callback(self._terminal.close)
        self._guard = Guard()
        stack.callback(self._guard.close, self._loop)
        self._guard.watch_in(self._loop)
        self._sockets = SocketDirectory()
        stack.callback(self._sockets.close)
        self._guard.add_directory(self._sockets.path)
        self._failures = Failures(self._terminal, self._picture)
        self._traces = trace.keep(directory.traces, self._node, self._terminal.warn)
        stack.callback(self._traces.close)
        self._arenas = Arenas()
        stack.callback(self._arenas.close)
        self._hosting = Hosting(self._house())
        stack.push_async_callback(self._hosting.close)
        if job.cluster is None or job.cluster.hosts:
            self._network.claim()
            await self._hosting.begin(self._resume[1] if self._resume else None)
        await self._network.connect(self._sockets.coordinator, directory.job, self._terminal.warn, stack)
        self._progress: Chronicle = self._hosting
        await self._set_up_workers(stack)

    def _house(self) -> House:
        return House(
            job=self._job,
            node=self._node,
            directory=self._directory,
            socket=self._sockets.coordinator,
            picture=self._picture,
            terminal=self._terminal,
            client=self._client,
            facts=self._facts,
            scrapes=self._scrapes,
            traces=self._traces,
            failed=lambda error: self._fail("the coordinator failed", error),
        )

    def _ground(self) -> Ground:
        attendance = self._attendance
        return Ground(
            told=attendance.conversation.told,
            over=self._ended.done,
            generation=lambda: self._picture.generation,
            alive=attendance.alive,
            keep=attendance.keep,
            alone=self._alone,
            socket=self._sockets.frames,
            office=Office(self._sockets.coordinator, self._hosting.take_over, self._hosting.close),
            alone_s=self._job.config.min_workers_timeout_s,
            restore_s=self._job.config.restore_timeout_s,
        )

    def _alone(self, why: str) -> None:
        text = f"node {self._node} has lost the coordinator{why}; it looks for the next one"
        log.warning(text)
        self._terminal.warn(text)

    async def _set_up_workers(self, stack: AsyncExitStack) -> None:
        premises = Premises(
            node=self._node,
            socket=self._sockets.agent,
            run_dir=self._directory.job,
            log_dir=self._job.log_dir or self._directory.logs,
            arena_fds=self._arenas.fds,
            resume=self._resume[0] if self._resume else None,
        )
        attendance = self._attendance = Attendance(
            self._job,
            premises,
            guard=self._guard,
            picture=self._picture,
            progress=self._progress,
            traces=self._traces,
            failures=self._failures,
            terminal=self._terminal,
            client=self._client,
            over=self._ended.done,
        )
        self._workers = attendance.workers
        said, refusals = lambda w, message: attendance.conversation.said(w, message), self._picture.refusals
        links = Links(self._workers, said, attendance.end, refusals)
        self._frames = FrameTraffic(self._ways(links))
        attendance.conversation = Conversation(self._hands(links))
        stack.push_async_callback(links.close)
        stack.push_async_callback(self._frames.close)
        self._farewell = Farewell(self._job, self._picture, attendance, self._terminal)
        stack.push_async_callback(self._farewell.kill_everything)
        await links.start(self._sockets.agent)
        await self._begin_work(stack)

    async def _begin_work(self, stack: AsyncExitStack) -> None:
        attendance = self._attendance
        reporter = status.Reporter(self._describe, self._picture.refusals)
        stack.callback(reporter.close)
        await reporter.start(self._sockets.status)
        await attendance.conversation.control.open(self._sockets.control, stack)
        watch = Watch(self._workers, self._picture, self._job.config, attendance.hung, attendance.spared)
        self._work(watch.run(), stack)

    def _work(self, work: asyncio._CoroutineLike[None], stack: AsyncExitStack) -> None:
        task = self._loop.create_task(work)
        task.add_done_callback(self._task_ended)
        stack.callback(task.cancel)

    def _ways(self, links: Links) -> Ways:
        return Ways(
            node=self._node,
            links=links,
            client=self._client,
            arenas=self._arenas,
            picture=self._picture,
            progress=self._progress,
            terminal=self._terminal,
            stop=lambda reason: self._attendance.conversation.stop(reason),
        )

    def _hands(self, links: Links) -> Hands:
        return Hands(
            node=self._node,
            workers=self._workers,
            links=links,
            client=self._client,
            frames=self._frames,
            picture=self._picture,
            progress=self._progress,
            failures=self._failures,
            terminal=self._terminal,
            start_worker=self._attendance.start,
            end_worker=self._attendance.end,
            end=self._end,
            probe=self._network.probe,
            snapshot_every=self._job.config.snapshot_every,
            shown=self._job.shown,
        )

    def _announce(self) -> None:
        self._directory.announce(self._facts())
        crew = self._job.crew(self._resume)
        self._terminal.say(f"{crew}; logs and events are in {self._directory.path}")

    def _facts(self) -> dict[str, Any]:
        pids = {"pid": os.getpid(), "guardian": self._guard.pid}
        return pids | {"node": self._node, "run_id": self._job.run_id} | self._sockets.places()

    def _describe(self) -> status.Status:
        state = self._hosting.server.state if self._hosting.server else None
        phase = "ending" if self._ended.done() else state.phase if state else "elsewhere"
        live, afar = self._workers.live(), status.elsewhere(state, self._node) if state else []
        return status.describe(self._node, phase, self._picture, live, self._progress.story, afar)

    # ------------------------------------------------------------------ while it runs

    async def _listen(self) -> None:
        why = await self._network.listen()
        self._end(m.JobEnded(status=1, reason=f"the coordinator has gone{why}"))

    def _end(self, ended: m.JobEnded) -> None:
        if not self._ended.done():
            self._ended.set_result(ended)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail("a part of the agent failed", error)

    def _defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, asyncio.CancelledError) or getattr(error, "errno", 0) in OUT_OF_DESCRIPTORS:
            return  # closed while it waits (this Python reports that), or not accepted yet: tried again
        self._fail(context["message"], error)

    def _fail(self, what: str, error: BaseException | None) -> None:
        log.error("%s", what, exc_info=error)
        kind = f": {type(error).__name__}: {error}" if error is not None else ""
        reason = f"{what}{kind}; the traceback is in {self._directory.agent_log}"
        self._end(m.JobEnded(status=1, reason=reason))

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals == 1 and number in DRAIN_SIGNALS and self._ended.done():
            self._terminal.say(f"{number.name}: the job is ending anyway; once more to kill everything")
            return
        if self._signals == 1 and number in DRAIN_SIGNALS:
            self._terminal.say(f"{number.name}: finishing the step and saving; once more to kill everything")
            self._progress.event("DrainRequested", why=number.name)
            self._client.say(m.DrainRequested(why=number.name))
            return
        self._kill_status = self._kill_status or 128 + number
        self._farewell.hurry.set()
        self._end(m.JobEnded(status=self._kill_status, reason=f"{number.name}: everything is killed"))

    # ------------------------------------------------------------------ the end

    async def _finish(self, ended: m.JobEnded) -> int:
        """Let go of the workers in the way this end asks for; return the exit status."""
        self._failures.job_ended(ended, self._directory.path)
        fields = msgspec.structs.asdict(ended)
        del fields["traceback"]  # it is in the box, and in the worker's log
        self._progress.event("JobEnded", **fields)
        status_of_scripts = await self._farewell.say(ended)
        found = self._kill_status or status_of_scripts
        return found if 0 <= found < 256 else 1
