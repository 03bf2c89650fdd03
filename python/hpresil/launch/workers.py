"""The worker processes of this node: started, watched, killed, reaped.

A worker's end is noticed in one of three ways, whichever comes first: its page's death watch (a fraction of a
millisecond, whatever the size of the process), its pidfd (after the kernel has freed its memory), or the
agent's own decision to kill it. From then on it is *gone*: its whole process group gets SIGKILL, the owner is
told at once, and nothing it says counts. It is *reaped* later, when the kernel has finished with it.

What a worker started and left behind in its session is adopted by the agent (it is a subreaper) and killed
too. A process that left the session lives until the job ends. Children that this process had before (of a
shell that became `hpresil` by ``exec``) are nobody's orphans and are left alone.

Everything here runs in the agent's main thread: PR_SET_PDEATHSIG follows the thread that is the parent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpresil.base import spans
from hpresil.base.phases import PHASES
from hpresil.launch import kernel
from hpresil.launch.calm import Calm
from hpresil.launch.guard import Guard
from hpresil.launch.stacks import Question, Stacks
from hpresil.launch.start_method import Forked, ForkServer, Launch, Process, spawn
from hpresil.native import DeathWatch, Page, PageState

ARMED = frozenset({"computing", "waiting", "applying", "tail"})
LAST_WORDS_S = 0.25
"""How long a crashing worker, which counts as gone already, may take to write its stacks to the log."""


@dataclass(frozen=True)
class Gone:
    """How a worker ended, as far as is known when it is noticed."""

    reason: str  # "killed", "exited", "hung", "ended"
    status: int | None
    page: PageState

    @property
    def armed(self) -> bool:
        """Whether it was inside a step."""
        return self.page.stamps > 0 and PHASES[self.page.phase] in ARMED

    @property
    def step(self) -> int:
        """The step it was at, -1 if it never said."""
        return self.page.step if self.page.stamps > 0 else -1

    @property
    def slot(self) -> int:
        """The slot it was at, -1 for none."""
        return self.page.slot if self.page.stamps > 0 else -1


@dataclass
class WorkerProcess:
    """One worker process."""

    id: int
    index: int
    spare: bool
    log: Path
    process: Process
    pidfd: int
    page: Page
    watch: DeathWatch
    gone: Gone | None = None
    noticed_ns: int = 0
    condemned: str = ""  # the reason to report if the agent kills it
    why: str = ""  # the same for people
    aside_later: bool = False  # it says where it stands before it is killed and steps aside
    may_leave: bool = False  # the job is over: it may take its time to exit
    reaped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """Its process id, which is its process group and session too."""
        return self.process.pid

    @property
    def start_method(self) -> str:
        """How the process came to be: "forkserver" or "spawn"."""
        return "forkserver" if isinstance(self.process, Forked) else "spawn"

    @property
    def error_file(self) -> Path:
        """Where an uncaught exception is written down."""
        return self.log.with_suffix(".error.json")

    @property
    def stacks_file(self) -> Path:
        """Where its stacks are written down, or why there are none, if it was killed because it hung."""
        return self.log.with_suffix(".stacks")

    def announced_status(self) -> int | None:
        """Return the exit status it wrote down before it asked to be fenced, if it did."""
        try:
            return int(self.log.with_suffix(".exit").read_text())
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Start:
    """What a new process needs."""

    worker: int
    index: int
    spare: bool
    command: list[str]
    log: Path
    fds: tuple[int, ...]
    env: Callable[[Page], Mapping[str, str]]


class Workers:
    """All worker processes of the node that are not reaped yet.

    Args:
        guard: Told of every process group.
        on_gone: Called once for each worker when its end is noticed.
        on_reaped: Called once for each worker when it has been reaped, with its exit status.
        fork_server: Where processes come from; None: each is a new interpreter.
    """

    def __init__(
        self,
        guard: Guard,
        on_gone: Callable[[WorkerProcess, Gone], None],
        on_reaped: Callable[[WorkerProcess, int], None],
        fork_server: ForkServer | None = None,
    ) -> None:
        self._guard = guard
        self._on_gone, self._on_reaped = on_gone, on_reaped
        self._fork_server = fork_server
        self.calm = Calm()
        self._loop = asyncio.get_running_loop()
        self.stacks = Stacks(self._loop)
        self._all: dict[int, WorkerProcess] = {}
        self._others = kernel.children()  # the guardian, and whoever was here before the job

    def all(self) -> list[WorkerProcess]:
        """Return those that are not reaped."""
        return list(self._all.values())

    def live(self) -> list[WorkerProcess]:
        """Return those whose end was not noticed."""
        return [worker for worker in self._all.values() if worker.gone is None]

    def get(self, worker: int) -> WorkerProcess | None:
        """Return the worker if it lives."""
        found = self._all.get(worker)
        return found if found is not None and found.gone is None else None

    async def start(self, start: Start) -> WorkerProcess:
        """Start a process; raises OSError if the system cannot."""
        page = Page.create()
        log_fd = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            launch = Launch(start.command, start.env(page), log_fd, (page.fd, *start.fds))
            process = await self._fork_server.fork(launch) if self._fork_server else None
            return self._started(start, page, process or spawn(launch))
        finally:
            os.close(log_fd)

    def _started(self, start: Start, page: Page, process: Process) -> WorkerProcess:
        self._guard.add_group(process.pid)
        worker = WorkerProcess(
            id=start.worker,
            index=start.index,
            spare=start.spare,
            log=start.log,
            process=process,
            pidfd=os.pidfd_open(process.pid),
            page=page,
            watch=DeathWatch(page),
        )
        self._all[worker.id] = worker
        self._loop.add_reader(worker.pidfd, self._exited, worker)
        self._loop.add_reader(worker.watch.fd, self._notice, worker)
        return worker

    def kill(self, worker: WorkerProcess, reason: str, why: str = "") -> None:
        """Kill the worker's process group and count it as gone for ``reason``, unless it is gone already.

        One that "hung" is asked where it stands first, and dies a fraction of a second later; ``why`` is what
        its file begins with.
        """
        if worker.gone is None:
            worker.condemned, worker.why = reason, why
            self._notice(worker)

    async def until_reaped(self, patience_s: float, hurry: asyncio.Event) -> None:
        """Wait until all are reaped, the patience is over, or ``hurry`` is set."""
        waits = [self._loop.create_task(worker.reaped.wait()) for worker in self.all()]
        if not waits:
            return
        everybody = asyncio.ensure_future(asyncio.wait(waits))
        hurrying = self._loop.create_task(hurry.wait())
        await asyncio.wait({everybody, hurrying}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (everybody, hurrying, *waits):
            task.cancel()

    def collect_orphans(self, *, everything: bool = False) -> bool:
        """Kill what dead workers left behind and reap adopted processes; return whether there were any.

        Args:
            everything: The job is over: kill every adopted process, also those of no known session.
        """
        own = {worker.pid for worker in self._all.values()} | {self._guard.pid}
        live = {worker.pid for worker in self.live()}
        strays = kernel.children() - own - self._others
        if not everything:
            strays = {pid for pid in strays if _is_stray(pid, live)}
        kernel.kill_and_reap(strays)
        return bool(strays)

    def _notice(self, worker: WorkerProcess) -> None:
        self._loop.remove_reader(worker.watch.fd)
        if worker.gone is not None:
            return
        page = worker.page.read()
        if worker.may_leave and not worker.condemned and kernel.ending_status(worker.pid) is None:
            return  # it asks to be fenced, but nobody waits for it any more
        if worker.condemned:
            gone = Gone(worker.condemned, None, page)
        elif page.fatal_signal:
            gone = Gone("killed", -page.fatal_signal, page)
        else:
            gone = _ended(worker, page)
        worker.gone, worker.noticed_ns = gone, spans.clock()
        with spans.span("notice", value=worker.id):
            if page.fatal_signal and not worker.condemned:
                self._loop.call_later(LAST_WORDS_S, self._kill, worker)
            elif gone.reason != "hung" or not self._ask(worker):
                self._kill(worker)
            self._on_gone(worker, gone)

    def _ask(self, worker: WorkerProcess) -> bool:
        head = f"worker {worker.id}, process {worker.pid}: {worker.why}"
        question = Question(worker.pid, worker.page, worker.stacks_file, head)
        worker.aside_later = self.stacks.ask(question, lambda: self._answered(worker))
        return worker.aside_later

    def _answered(self, worker: WorkerProcess) -> None:
        self._kill(worker)
        if worker.aside_later and worker.id in self._all:
            worker.aside_later = False
            self.calm.step_aside(worker.pid)

    def _kill(self, worker: WorkerProcess) -> None:
        if worker.id in self._all:  # not reaped, so the number is still its own
            kernel.kill_group(worker.pid)

    def _exited(self, worker: WorkerProcess) -> None:
        self._loop.remove_reader(worker.pidfd)
        self._notice(worker)
        kernel.kill_group(worker.pid)  # its children, while the number is still taken
        self._guard.drop_group(worker.pid)
        self.calm.reaped(worker.pid)
        status = worker.process.wait()
        spans.add("reap", worker.noticed_ns, value=worker.id)
        os.close(worker.pidfd)
        del self._all[worker.id]
        self._loop.run_in_executor(None, worker.watch.close)
        self.collect_orphans()
        worker.reaped.set()
        self._on_reaped(worker, status)


def _ended(worker: WorkerProcess, page: PageState) -> Gone:
    status = kernel.ending_status(worker.pid)
    if status is None:  # it lives: it asked to be fenced, or only its holder thread ended
        status = worker.announced_status()
    if status is None:
        return Gone("ended", None, page)
    return Gone("killed" if status < 0 else "exited", status, page)


def _is_stray(pid: int, live: set[int]) -> bool:
    """Return whether an adopted process is dead, or was left behind by a worker that is gone."""
    seen = kernel.stat(pid)
    if seen is None or seen.state == "Z":
        return True
    leader = kernel.stat(seen.session)
    return seen.session not in live and seen.session != pid and (leader is None or leader.exiting)
