"""How worker processes come to be: forked by the fork server, or as new interpreters."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpresil.base.deadline import now
from hpresil.launch.fork_server import ADOPTION_S, CONTROL
from hpresil.launch.guard import Guard

log = logging.getLogger(__name__)
READY_S = 120.0
FORK_S = ADOPTION_S + 5.0
"""The worker gives up first, so that its log says why."""
ANSWER_BYTES = 4096
MAX_SERVERS = 3
SERVERS_S = 600.0
"""A server that ended is started again unless `MAX_SERVERS` were started within this time."""


class Process(Protocol):
    """A started process, a child of this one."""

    @property
    def pid(self) -> int:
        """Its process id, which is its session too."""

    def wait(self) -> int:
        """Wait for its end and return its exit status, minus the signal if one killed it."""


@dataclass(frozen=True)
class Forked:
    """A process that the fork server made and this one adopted."""

    pid: int

    def wait(self) -> int:
        """Wait for its end and return its exit status, minus the signal if one killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass(frozen=True)
class Launch:
    """What a new process is given; it finds ``descriptors`` under their numbers here."""

    command: list[str]
    environment: Mapping[str, str]
    log_fd: int
    descriptors: tuple[int, ...]


def spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a new interpreter; raises OSError if the system cannot."""
    return subprocess.Popen(
        launch.command,
        env=dict(launch.environment),
        stdin=subprocess.DEVNULL,
        stdout=launch.log_fd,
        stderr=launch.log_fd,
        start_new_session=True,
        pass_fds=launch.descriptors,
    )


class ForkServer:
    """The agent's side of the fork server: starts it, asks it for workers, starts it again if it dies.

    Lives in the agent's main thread. It fails softly: whatever goes wrong, `fork` returns None and the caller
    starts a new interpreter.

    Args:
        command: The command line of the workers, which is the server's too.
        environment: What the environments of all workers have in common.
        log: Where the server writes what it has to say.
        guard: Told of the server's process group.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, guard: Guard) -> None:
        self._command, self._environment, self._log, self._guard = command, environment, log, guard
        self._asking = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: list[float] = []
        self.why_not = ""
        """Why it does not fork, once that is known."""
        self._start()

    async def fork(self, launch: Launch) -> Process | None:
        """Return a new worker, a child of this process; None if there is none to be had this way."""
        async with self._asking:
            if self._process is None:
                return None
            try:
                if not self._ready:
                    await self._until_ready()
                return await self._ask(launch)
            except (OSError, TimeoutError, ValueError, LookupError, TypeError) as error:
                log.warning("the fork server is of no use: %s: %s", type(error).__name__, error)
                self.close()
                self._starts = [at for at in self._starts if now() - at < SERVERS_S]
                if not self.why_not and len(self._starts) < MAX_SERVERS:
                    self._start()  # for the next one; this one does not wait
                return None

    def close(self) -> None:
        """Kill the server; the workers do not depend on it."""
        process, self._process = self._process, None
        if process is not None:
            self._control.close()
            process.kill()
            self._guard.drop_group(process.pid)
            process.wait()

    def _start(self) -> None:
        self._starts.append(now())
        self._ready = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        log_fd = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        fd = theirs.fileno()
        try:
            environment = {**self._environment, CONTROL: str(fd)}
            self._process = spawn(Launch(self._command, environment, log_fd, (fd,)))
            self._guard.add_group(self._process.pid)
        except OSError as error:
            self._control.close()
            self.why_not = str(error)
        finally:
            theirs.close()
            os.close(log_fd)

    async def _until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READY_S):
                answer = await loop.sock_recv(self._control, ANSWER_BYTES)
        except TimeoutError:  # a slow disk: others would wait as long, one after the other
            self.why_not = f"the imports took more than {READY_S:g} s"
            raise
        if not answer:
            raise ConnectionError(f"it ended while it was starting; see {self._log}")
        said = json.loads(answer)
        if not said["ready"]:
            self.why_not = said["why"]
            raise ValueError(self.why_not)
        self._ready = True

    async def _ask(self, launch: Launch) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            with theirs:
                request = {"environment": dict(launch.environment), "descriptors": launch.descriptors}
                descriptors = [theirs.fileno(), launch.log_fd, *launch.descriptors]
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            async with asyncio.timeout(FORK_S):
                answer = await asyncio.get_running_loop().sock_recv(ours, ANSWER_BYTES)
            if not answer:
                raise ConnectionError(f"it could not fork; see {self._log}")
            # From here to the caller's next await nothing else runs, so the caller knows the worker
            # before the worker can say anything.
            ours.send(b"+")
            return Forked(int(answer))
