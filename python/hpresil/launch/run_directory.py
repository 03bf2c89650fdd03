"""Where a job writes, and the short directory in which its sockets live.

    RUN/agent.json          process id and sockets of the agent, while it runs
    RUN/agent.log           what the agent warns of
    RUN/lock                locked by the agent while it runs: one job at a time
    RUN/journal             the coordinator's decisions; journal-K: those of the one of term K
    RUN/coordinator.json    where the coordinator of a job of several nodes is
    RUN/events.jsonl        what happened
    RUN/metrics.jsonl       what the script logged
    RUN/trace/              spans of the agent and of each worker
    RUN/logs/worker-N.log   what worker N wrote, and worker-N.error.json if an exception ended it
    RUN/logs/worker-N.stacks  where worker N stood when it was killed because it hung
    RUN/checkpoints/        saved states
    RUN/lease               locked by the coordinator of local nodes while it lives
    RUN/secret              what agents of several nodes prove to each other, mode 0600
    RUN/nodes/NAME/         agent.json, agent.log and logs of another node
    RUN/earlier/K/          logs, events and journal of the Kth job that ran here before

Sockets do not live there: a socket's path may have 107 bytes only, and a run directory may be on a network
file system. They get a directory of mode 0700 under XDG_RUNTIME_DIR or /tmp.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

from hpresil.base.errors import ConfigError
from hpresil.membership.journal import last_generation

MAX_SOCKET_BASE = 60
NODES = "nodes"
MOVED = (
    "logs",
    "trace",
    "journal*",
    "events.jsonl",
    "agent.json",
    "agent.log",
    "metrics.jsonl",
    "coordinator.json",
)
KEPT_ON_RESUME = ("metrics.jsonl",)


class RunDirectory:
    """A run directory that this process holds the lock of."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.job = path.parents[1] if path.parent.name == NODES else path
        """The job's run directory, of which this is one node's part."""
        self._lock_fd = lock_fd
        self._announced = False
        self.logs = path / "logs"
        self.traces = path / "trace"
        self.checkpoints = path / "checkpoints"
        self.journal = path / "journal"
        self.events = path / "events.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.agent_file = path / "agent.json"
        self.agent_log = path / "agent.log"

    @classmethod
    def open(cls, path: Path | None, *, run_id: str, resume: bool = False) -> RunDirectory:
        """Create or take over a run directory and lock it.

        Args:
            path: The directory; None: a new one under ``runs`` with ``runs/latest`` pointing to it (with
                ``resume``: the one it points to).
            run_id: Ends the name of a new directory.
            resume: The directory must hold a checkpoint, and what belongs to the training is kept.

        Raises:
            ConfigError: another job runs there, there is nothing to resume, or something would be lost.
        """
        runs = Path("runs")
        linked = path is None and not resume
        if path is None:
            path = runs / "latest" if resume else runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{run_id}"
        if resume and not path.is_dir():
            raise ConfigError(
                f"{path} does not exist, so there is nothing to resume; name one with --run-dir"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            path = path.resolve()
            lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"the run directory {path} cannot be used: {error.strerror}") from error
        try:
            _lock(lock_fd, path)
            directory = cls(path, lock_fd)
            directory._take_over(resume)
        except BaseException:
            os.close(lock_fd)
            raise
        if linked:
            _link(runs / "latest", path.name)
        return directory

    def inherit(self) -> RunDirectory:
        """Return the job's run directory, for an agent that the coordinator has moved to.

        What the old coordinator wrote there stays. It may still hold the lock, if it is cut off.
        """
        lock_fd = os.open(self.job / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(ConfigError):
            _lock(lock_fd, self.job)
        return RunDirectory(self.job, lock_fd)

    def announce(self, facts: dict[str, Any]) -> None:
        """Write ``agent.json``: how to reach the agent."""
        self._announced = True
        temporary = self.agent_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(temporary, self.agent_file)

    def earlier_generation(self) -> int:
        """Return the newest generation of the jobs that ran here before, 0 if there was none."""
        return max((_generation(journal) for journal in self.path.glob("earlier/*/journal*")), default=0)

    def close(self) -> None:
        """Remove ``agent.json`` and let go of the lock."""
        if self._lock_fd >= 0:
            if self._announced:
                self.agent_file.unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _take_over(self, resume: bool) -> None:
        saved = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        if saved and not resume:
            raise ConfigError(
                f"{self.path} holds checkpoints of an earlier run; pass --resume to continue it, or choose "
                "another --run-dir"
            )
        if resume and not saved:
            raise ConfigError(f"{self.path} holds no checkpoint, so there is nothing to resume")
        kept = KEPT_ON_RESUME if resume else ()
        old = [path for name in MOVED if name not in kept for path in self.path.glob(name)]
        if old:
            base = self.path / "earlier"
            base.mkdir(exist_ok=True)
            number = 1 + max((int(d.name) for d in base.iterdir() if d.name.isdecimal()), default=0)
            (base / str(number)).mkdir()
            for item in old:
                os.rename(item, base / str(number) / item.name)
        self.logs.mkdir()


def _generation(journal: Path) -> int:
    try:
        return last_generation(journal)
    except (ConfigError, OSError):
        return 0  # numbers may then start again; nothing of the earlier job is left to be mixed up with


def _lock(lock_fd: int, path: Path) -> None:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock_fd, 32, 0).decode(errors="replace").strip()
        raise ConfigError(
            f"a job already runs in {path} (agent process {holder or 'unknown'}); wait for it, stop it, or "
            "choose another --run-dir"
        ) from None
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".latest-{secrets.token_hex(4)}")
    try:
        os.symlink(target, temporary)
        os.replace(temporary, link)
    except OSError:  # a convenience only: the file system may have no links
        temporary.unlink(missing_ok=True)


class SocketDirectory:
    """A private directory with a short path."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hpresil-", dir=_socket_base()))
        self.agent = self.path / "agent"
        self.coordinator = self.path / "coordinator"
        self.status = self.path / "status"
        self.control = self.path / "control"
        self.frames = self.path / "frames"

    def places(self) -> dict[str, str]:
        """Return what ``agent.json`` says of it."""
        return {"socket": str(self.status), "control": str(self.control), "sockets": str(self.path)}

    def close(self) -> None:
        """Remove it with all its sockets."""
        shutil.rmtree(self.path, ignore_errors=True)


def _socket_base() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, "/tmp", tempfile.gettempdir()):
        if base and len(base) <= MAX_SOCKET_BASE and _usable(base):
            return base
    raise ConfigError(
        "no directory for sockets: neither XDG_RUNTIME_DIR nor /tmp is a writable local directory"
    )


def _usable(base: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(base).st_mode) and os.access(base, os.W_OK | os.X_OK)
    except OSError:
        return False
