"""A running `hpresil run` for tests: events as they come, signals, and proof that nothing is left."""

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

from job import COMMAND, SCRIPTS, logs, processes_of

Event = dict[str, Any]


class Launched:
    """One launcher process; the context kills it and checks that nothing of it is left.

    ``inside``: a command that runs it, as env does.

    Most scripts here do not use torch, so new interpreters are quicker than a fork server that imports it.
    """

    def __init__(
        self,
        directory: Path,
        script: str,
        *args: str,
        flags: tuple[str, ...] = (),
        start_method: str = "spawn",
        inside: tuple[str, ...] = (),
        **env: str,
    ) -> None:
        self.directory = directory
        self.run_dir = directory / "run"
        target = str(SCRIPTS / script) if (SCRIPTS / script).exists() else script
        self.command = [
            *inside,
            *COMMAND,
            "run",
            "--run-dir",
            str(self.run_dir),
            "--start-method",
            start_method,
        ]
        self.command += [*flags, target, *args]
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("HPRESIL_")} | env
        if path := self.env.get("PYTHONPATH"):  # the job runs in another directory
            self.env["PYTHONPATH"] = os.pathsep.join(
                os.path.abspath(entry) for entry in path.split(os.pathsep)
            )
        self._out, self._err = directory / "stdout", directory / "stderr"

    def __enter__(self) -> Launched:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.directory,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.assert_nothing_left()

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def events(self, name: str = "") -> list[Event]:
        try:
            lines = (self.run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [event for event in found if not name or event["event"] == name]

    def facts(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "agent.json").read_text())

    def until(self, ready: Callable[[], Any], seconds: float = 40.0) -> Any:
        """Return what `ready` returns once it is true; fail with everything the job has said."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := ready():
                return found
            if self.process.poll() is not None:
                if found := ready():
                    return found
                break
            time.sleep(0.01)
        raise AssertionError(f"{self.story()}\nstatus {self.process.poll()}")

    def until_step(self, step: int) -> None:
        self.until(lambda: any(event["step"] >= step for event in self.events("StepCommitted")))

    def ended(self, seconds: float = 40.0) -> int:
        """Wait for the end and return the exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.story()) from None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def pid(self, worker: int) -> int:
        return next(e["pid"] for e in self.events("WorkerStarted") if e["worker"] == worker)

    def story(self) -> str:
        return f"{' '.join(self.command)}\n{self.stdout}\n{self.stderr}\n{logs(self.run_dir)}"

    def assert_nothing_left(self, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        agent = self.run_dir / "agent.json"
        sockets = Path(json.loads(agent.read_text())["sockets"]) if agent.exists() else self.run_dir / "none"
        while ((left := processes_of(self.run_dir)) or sockets.exists()) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes left behind: {left}\n{self.story()}"
        assert not sockets.exists(), "sockets were left behind"
