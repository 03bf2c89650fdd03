"""Live workers for the tests of the liveness page."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpresil import native

DEADLINE_S = 30.0


class LiveWorker:
    """A process that holds a page, and the agent's view of it: a death watch and a pidfd."""

    def __init__(self, story: str, argument: str, folder: Path) -> None:
        self.page = native.Page.create()
        self.watch = native.DeathWatch(self.page)
        command = [sys.executable, str(Path(__file__).with_name("page_worker.py"))]
        self.process = subprocess.Popen(
            [*command, str(self.page.fd), story, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            pass_fds=[self.page.fd],
            start_new_session=True,
        )
        self.pidfd = os.pidfd_open(self.process.pid)

    def expect(self, line: str | None = None) -> str:
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        if not said:
            self.process.wait(DEADLINE_S)
            assert self.process.stderr is not None
            pytest.fail(f"the worker ended early: {self.process.stderr.read()}")
        assert line is None or said == line
        return said

    def begin(self) -> float:
        """Let the story begin; returns the monotonic time."""
        assert self.process.stdin is not None
        begun = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return begun

    def kill(self) -> float:
        killed = time.monotonic()
        self.process.send_signal(signal.SIGKILL)
        return killed

    def notice(self, within_s: float = DEADLINE_S) -> str | None:
        """Wait for the watch; returns its reason."""
        select.select([self.watch.fd], [], [], within_s)
        return self.watch.reason()

    def exited_at(self) -> float:
        """Wait for the exit status; returns the monotonic time at which it was there."""
        ready, _, _ = select.select([self.pidfd], [], [], DEADLINE_S)
        assert ready, "the process did not end"
        at = time.monotonic()
        self.process.wait(DEADLINE_S)
        return at

    def alive(self) -> bool:
        return not select.select([self.pidfd], [], [], 0)[0]

    def close(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        with self.process:  # closes its pipes and reaps it
            pass
        os.close(self.pidfd)
        self.watch.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., LiveWorker]]:
    """Start workers by the name of their story; all are gone after the test."""
    workers: list[LiveWorker] = []

    def start(story: str, argument: str = "") -> LiveWorker:
        worker = LiveWorker(story, argument, tmp_path)
        workers.append(worker)
        worker.expect("held")
        return worker

    yield start
    for worker in workers:
        worker.close()
