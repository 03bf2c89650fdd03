"""A job of several machines, each with a launcher of its own, for tests that lose and cut them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cut_network import CutNetwork
from job import COMMAND, SCRIPTS, logs, processes_of

Event = dict[str, Any]
PORT = 29555


class Machines:
    """One launcher a machine, with a run directory that all share; the context kills what is left."""

    def __init__(self, directory: Path, network: CutNetwork, count: int, script: str, *args: str) -> None:
        self.run_dir = directory / "run"
        self.record = directory / "record.jsonl"
        self._directory, self._network, self._count = directory, network, count
        self._script, self._args = script, args
        self.launchers: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Machines:
        for machine in range(self._count):
            self.start(machine)
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self.launchers.values():
            if launcher.poll() is None:
                launcher.send_signal(signal.SIGCONT)
                launcher.kill()
            launcher.wait()
        end = time.monotonic() + 10
        while (left := processes_of(self.run_dir)) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes left behind: {left}\n{self.story()}"

    def start(self, machine: int) -> None:
        """Start the launcher of a machine, again if it was lost."""
        command = [
            *self._network.on(machine), *COMMAND, "run", "--run-dir", str(self.run_dir),
            "--nnodes", str(self._count), "--nproc-per-node", "1",
            "--coordinator", f"{self._network.address(0)}:{PORT}",
            "--node-rank", str(machine), "--node-name", f"m{machine}",
            "--node-addr", self._network.address(machine),
            "--record", str(self.record), "--record-state-every", "1",
            str(SCRIPTS / self._script), *self._args,
        ]  # fmt: skip
        if (old := self.launchers.get(machine)) is not None:
            old.wait(10)
        env = {k: v for k, v in os.environ.items() if not k.startswith("HPRESIL_")}
        with self._output(machine).open("ab") as out:
            self.launchers[machine] = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _output(self, machine: int) -> Path:
        return self._directory / f"m{machine}.out"

    def processes(self, machine: int) -> list[int]:
        """The machine's launcher and whatever descends from it, parents first."""
        found, left = [], [self.launchers[machine].pid]
        while left:
            pid = left.pop(0)
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has ended since
                    left += map(int, children.read_text().split())
        return found

    def send(self, machine: int, number: signal.Signals) -> None:
        """Send a signal to every process of a machine."""
        for pid in self.processes(machine):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def said(self, machine: int) -> str:
        return self._output(machine).read_text()

    def events(self, name: str = "") -> list[Event]:
        try:
            data = (self.run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in data if line.endswith(b"\n")]
        return [event for event in found if not name or event["event"] == name]

    def steps(self) -> int:
        return max((event["step"] for event in self.events("StepCommitted")), default=-1)

    def members(self) -> int:
        views = self.events("ViewInstalled")
        return len(views[-1]["members"]) if views else 0

    def until(self, ready: Callable[[], Any], seconds: float = 40.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < end, self.story()
            time.sleep(0.02)
        return found

    def until_steps(self, more: int, seconds: float = 40.0) -> None:
        """Wait for ``more`` committed steps from now on."""
        goal = self.steps() + more
        self.until(lambda: self.steps() >= goal, seconds)

    def drained(self, machine: int, seconds: float = 30.0) -> dict[int, int]:
        """Drain the job through a machine; return the exit status of every launcher."""
        self.launchers[machine].send_signal(signal.SIGTERM)
        return {i: launcher.wait(seconds) for i, launcher in self.launchers.items()}

    def story(self) -> str:
        return "\n".join([*(self.said(i) for i in range(self._count)), logs(self.run_dir)])
