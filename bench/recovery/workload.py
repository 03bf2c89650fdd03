"""The workload that all contenders train: 50.4 million fp32 parameters, about 604 MB of state with Adam.

Twelve ``Linear(2048) + ReLU``, a batch of 4 for each rank or slot, the mean of the squared outputs as
loss, fused Adam, one thread. The batch of (step, part) is drawn from a generator of its own, so that a
contender may compute a part wherever it likes.

`Marks` writes what a training process saw, one JSON line each: ``t`` is the monotonic clock, which all
processes of a machine share. A ``step`` line is written after the optimizer has run, with the
durations of the step's parts in milliseconds and the processor time of the process so far, all threads.
"""

import json
import mmap
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTH, LAYERS, BATCH = 2048, 12, 4
LEARNING_RATE = 1e-4
KILLED_RANK = 1


def build() -> nn.Sequential:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)


def batch(step: int, part: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step * 1000 + part)
    return torch.randn(BATCH, WIDTH, generator=generator)


def loss_of(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


class Marks:
    """Appends lines to ``marks.PID.jsonl`` in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._file = open(directory / f"marks.{os.getpid()}.jsonl", "a", buffering=1)  # noqa: SIM115
        self._clock = time.monotonic()
        self._parts: dict[str, float] = {}

    def add(self, what: str, **fields: Any) -> None:
        line = {"t": time.monotonic(), "pid": os.getpid(), "what": what, **fields}
        self._file.write(json.dumps(line) + "\n")

    def begin(self) -> None:
        """A step begins here."""
        self._clock, self._parts = time.monotonic(), {}

    def part(self, name: str) -> None:
        """What happened since the last call, or since `begin`, was ``name``."""
        now = time.monotonic()
        self._parts[name] = self._parts.get(name, 0.0) + (now - self._clock) * 1e3
        self._clock = now

    def end(self, step: int, rank: int | None) -> None:
        self.add("step", step=step, rank=rank, cpu_s=time.process_time(), parts=self._parts)


def read_marks(directory: Path) -> list[dict[str, Any]]:
    """Return the complete lines of all processes in the order of their times."""
    lines = [
        json.loads(line)
        for path in directory.glob("marks.*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    return sorted(lines, key=lambda line: line["t"])


def die_once(directory: Path) -> None:
    """SIGKILL to this process unless one was killed here before; notes when and who."""
    try:
        fd = os.open(directory / "killed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    os.write(fd, json.dumps({"pid": os.getpid(), "t": time.monotonic()}).encode())
    os.close(fd)
    os.kill(os.getpid(), signal.SIGKILL)


def resident(gib: float) -> mmap.mmap | None:
    """Return that much memory in small pages, all of it in use, None for 0."""
    if gib <= 0:
        return None
    memory = mmap.mmap(-1, int(gib * (1 << 30)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, len(memory), mmap.PAGESIZE):
        memory[offset] = 1
    return memory
