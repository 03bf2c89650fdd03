"""What all processes of a run use while they train: looked at from outside, since each knows of itself only.

Workers, and all that they need to outlive a fault: launchers, agents, monitors, spares, and processes that
write checkpoints.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bench.contenders import run_processes

MEMORY_EVERY_S = 0.25


class Use:
    """Looks at a run whenever it is called (`launched.run`): processor time between two steps, then memory.

    Memory is read only after the last step that is timed, since reading it holds up the processes.

    Args:
        first, last: Processor time counts from the mark of the one to that of the other, of rank 0.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._read: dict[Path, int] = {}
        self._step = -1
        self._cpu: list[tuple[int, float]] = []
        self._memory: list[float] = []
        self._next = 0.0

    def __call__(self, directory: Path) -> None:
        self._follow(directory)
        wanted = (self._first, self._last)[len(self._cpu) :]
        if wanted and self._step >= wanted[0]:
            self._cpu.append((self._step, run_processes.cpu_seconds(directory)))
        if self._step >= self._last and time.monotonic() >= self._next:
            self._memory.append(run_processes.memory_mib(directory))
            self._next = time.monotonic() + MEMORY_EVERY_S

    def figures(self) -> dict[str, float]:
        """Return ``cpu_s``, processor seconds of all processes a step, and ``memory``, MiB, at most.

        What could not be looked at in time is not there.
        """
        found = {}
        if len(self._cpu) == 2 and self._cpu[1][0] > self._cpu[0][0]:
            (first, before), (last, after) = self._cpu
            found["cpu_s"] = (after - before) / (last - first)
        if self._memory:
            found["memory"] = max(self._memory)
        return found

    def _follow(self, directory: Path) -> None:
        """Read what was written since the last time, for the newest step of rank 0."""
        for path in directory.glob("marks.*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._look_at(json.loads(line))

    def _look_at(self, mark: dict[str, Any]) -> None:
        if mark["what"] == "step" and mark["rank"] == 0:
            self._step = max(self._step, mark["step"])
