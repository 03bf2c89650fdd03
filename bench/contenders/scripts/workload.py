"""The workload that all contenders train, the faults they meet, and the marks they leave.

Twelve ``Linear + ReLU``, the mean of the squared outputs as loss, fused Adam, one thread. A step has one part
of 4 samples for each worker of the full group (64 where computing is to outweigh sending). Part p of step
s is drawn from a generator of its own, so a contender may compute it wherever it likes, and which parts went
into a step can be counted.

`Marks` writes what a training process saw, one JSON line each: ``t`` is the monotonic clock, which all
processes of a machine share. Needs torch and nothing else, so it runs in every contender's environment.
"""

import json
import mmap
import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES = {"small": (64, 4), "5m": (640, 4), "50m": (2048, 4), "50m-long": (2048, 64), "350m": (5400, 4)}
"""Width and samples of a part; 12 layers of that width have about as many parameters as the name says."""
LAYERS = 12
LEARNING_RATE = 1e-4
FAULT = "fault"
"""The file in BENCH_OUT that is there once the fault has happened: whom it ended, and when."""


class Planned(RuntimeError):
    """The exception that a worker raises when it is told to."""


class Workload:
    """What one training process computes, by the environment that the bench has set.

    BENCH_OUT: where marks go. BENCH_SIZE, BENCH_STEPS. BENCH_FAULT: ``KIND:RANK:STEP`` or nothing; it happens
    once in a job, after the forward pass of that step.
    """

    def __init__(self) -> None:
        self.out = Path(os.environ["BENCH_OUT"])
        self.width, self.samples = SIZES[os.environ["BENCH_SIZE"]]
        self.steps = int(os.environ["BENCH_STEPS"])
        kind, rank, step = (os.environ.get("BENCH_FAULT") or "none:-1:-1").split(":")
        self._kind, self._rank, self._step = kind, int(rank), int(step)
        self._ballast: mmap.mmap | None = None
        self.marks = Marks(self.out)
        torch.set_num_threads(1)

    def build(self) -> nn.Sequential:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(LAYERS):
            layers += [nn.Linear(self.width, self.width), nn.ReLU()]
        return nn.Sequential(*layers)

    def adam(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)

    def batch(self, step: int, part: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step * 1000 + part)
        return torch.randn(self.samples, self.width, generator=generator)

    def ballast(self, rank: int) -> None:
        """Keep BENCH_RESIDENT GiB of memory in small pages in the worker that will die.

        Not in the one that is started in its place: filling its memory is no part of a recovery.
        """
        gib = float(os.environ.get("BENCH_RESIDENT") or 0)
        if gib > 0 and rank == self._rank and not (self.out / FAULT).exists():
            self._ballast = resident(gib)

    def meet_fault(self, step: int, rank: int) -> None:
        """Die, hang or raise, if it is this worker's turn."""
        if (rank, step) != (self._rank, self._step):
            return
        victims = self._victims()
        if not self._first(victims):
            return
        if self._kind in ("kill", "node"):
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            time.sleep(60.0)  # who started it is dead, and this process dies of it
        elif self._kind == "hang":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._kind == "raise":
            raise Planned("the bench asked for an exception")

    def _victims(self) -> list[int]:
        """Return who dies, this process last: of a node who started its workers, these, and their like.

        Processes that are nobody's children have left their numbers in ``beside-STARTER.ANYTHING``.
        """
        if self._kind != "node":
            return [os.getpid()]
        starter = int(os.environ.get("HPRESIL_AGENT_PID") or os.getppid())
        started = Path(f"/proc/{starter}/task/{starter}/children").read_text().split()
        started += [path.read_text() for path in self.out.glob(f"beside-{starter}.*")]
        return [starter, *(pid for pid in map(int, started) if pid != os.getpid()), os.getpid()]

    def _first(self, victims: list[int]) -> bool:
        try:
            fd = os.open(self.out / FAULT, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        os.write(fd, json.dumps({"pids": victims, "t": time.monotonic()}).encode())
        os.close(fd)
        return True


def loss_of(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


def bits(loss: torch.Tensor) -> str:
    """Return the value of a loss to its last bit."""
    return struct.pack(">f", float(loss)).hex()


class Marks:
    """Appends lines to ``marks.PID.jsonl`` in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._file = open(directory / f"marks.{os.getpid()}.jsonl", "a", buffering=1)  # noqa: SIM115

    def add(self, what: str, **fields: Any) -> None:
        line = {"t": time.monotonic(), "pid": os.getpid(), "what": what, **fields}
        self._file.write(json.dumps(line) + "\n")

    def step(self, step: int, *, rank: int | None, world: int, parts: dict[int, str]) -> None:
        """A step is done; ``parts``: the bits of the loss of each part that this process put into it."""
        self.add("step", step=step, rank=rank, world=world, parts=parts)


def resident(gib: float) -> mmap.mmap:
    memory = mmap.mmap(-1, int(gib * (1 << 30)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, len(memory), mmap.PAGESIZE):
        memory[offset] = 1
    return memory
