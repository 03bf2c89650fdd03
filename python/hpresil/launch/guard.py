"""The agent's side of the guardian: starts it, keeps it informed, and starts it again if it dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

GUARDIAN = Path(__file__).with_name("guardian.py")
EXIT_WAIT_S = 5.0
MAX_STARTS = 20


class Guard:
    """One guardian process and what it has been told.

    Create it in the main thread; all methods are called there.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._directories: set[str] = set()
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._start()

    @property
    def pid(self) -> int:
        """The guardian's process id, 0 if there is none."""
        return self._process.pid if self._process else 0

    def watch_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notice in ``loop`` when the guardian dies, and replace it."""
        if self._pidfd >= 0:
            loop.add_reader(self._pidfd, self._died, loop)

    def add_group(self, group: int) -> None:
        """A process group lives from now on."""
        self._groups.add(group)
        self._tell(f"+ {group}")

    def drop_group(self, group: int) -> None:
        """The group is gone; call it before its leader is reaped, while the number is still taken."""
        self._groups.discard(group)
        self._tell(f"- {group}")

    def add_directory(self, directory: Path) -> None:
        """The directory must not outlive the agent."""
        self._directories.add(str(directory))
        self._tell(f"d {directory}")

    def drop_directory(self, directory: Path) -> None:
        """The directory is removed."""
        self._directories.discard(str(directory))
        self._tell(f"u {directory}")

    def close(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Send the guardian home; the agent has cleaned up."""
        process, self._process = self._process, None
        if process is None:
            return
        if loop is not None:
            loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        assert process.stdin is not None
        try:
            process.stdin.write(b"x\n")
        except OSError:
            pass  # it died
        process.stdin.close()
        try:
            process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        self._starts += 1
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARDIAN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        for line in [f"d {path}" for path in self._directories] + [f"+ {group}" for group in self._groups]:
            self._tell(line)

    def _died(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if self._starts < MAX_STARTS:
            self._start()
            self.watch_in(loop)

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(line.encode("utf-8", "surrogateescape") + b"\n")
        except OSError:
            pass  # it died; its successor is told everything
