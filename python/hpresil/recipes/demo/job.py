"""One `hpresil run` as a child process: its events as they come, signals to its workers, a sure end.

The launcher runs in a session of its own, so that an interrupt at the keyboard reaches the demo alone,
which then ends the job. If the demo itself is killed, the kernel tells the launcher to drain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from hpresil.native import set_pdeathsig
from hpresil.recipes.demo.conductor import Act
from hpresil.telemetry.events import Event, parse

DRAIN_TIMEOUT_S = 30.0
HURRY_S = 0.5
KILL_TIMEOUT_S = 10.0
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "lose_node": signal.SIGKILL,
    "hold": signal.SIGSTOP,
    "let_go": signal.SIGCONT,
}


class Tail:
    """Reads what was appended to a file of events since the last call.

    Args:
        path: The file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """Return the new complete events."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return list(parse(complete))


class Job:
    """A running job; leaving the context ends it, whatever its state.

    Args:
        arguments: What follows ``hpresil run``, without ``--run-dir``.
        run_dir: The job's run directory.
        output: A file that gets what the launcher prints.
    """

    def __init__(self, arguments: list[str], *, run_dir: Path, output: Path) -> None:
        run = [sys.executable, "-m", "hpresil.cli.main", "run", "--run-dir", str(run_dir)]
        self.command = run + arguments
        self.output = output
        self._tail = Tail(run_dir / "events.jsonl")
        self._held: set[int] = set()

    def __enter__(self) -> Self:
        # A setting in the user's environment would make another job than the one the demo judges.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HPRESIL_")}
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pid in self._held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        drain_s = DRAIN_TIMEOUT_S if error is None else HURRY_S
        for wait_s in (drain_s, KILL_TIMEOUT_S):  # the first signal drains, the second kills the workers
            if self._process.poll() is None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(wait_s)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its guardian ends the workers
            self._process.wait(KILL_TIMEOUT_S)

    def status(self) -> int | None:
        """Return the launcher's exit status, None while it runs."""
        return self._process.poll()

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        return self._tail.read()

    def last_lines(self, count: int = 20) -> str:
        """Return the end of what the launcher has printed."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-count:])

    def act(self, act: Act) -> bool:
        """Send the signal that ``act`` stands for; return whether its target was there."""
        if act.deed == "drain":
            if self._process.poll() is None:
                self._process.terminate()
            return True
        (self._held.add if act.deed == "hold" else self._held.discard)(act.pid)
        try:
            os.kill(act.pid, SIGNALS[act.deed])
        except ProcessLookupError:
            return False
        return True


def _end_with_parent() -> None:
    set_pdeathsig(signal.SIGTERM)
