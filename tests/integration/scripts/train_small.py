"""A tiny regression whose script can misbehave on request."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import os
import signal
import time

import torch
from reserve import wait_for_spares
from torch import nn

import hpresil
from hpresil import native
from hpresil.snapshot import filling

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--nan", type=int, help="the loss of slot 1 is NaN at this step")
parser.add_argument("--bug", type=int, help="slot 1 raises at this step, always")
parser.add_argument("--late", type=int, help="rank 1 sleeps before it applies this step")
parser.add_argument("--diverge", type=int, help="rank 1 changes its own parameters at the end of this step")
parser.add_argument("--odd-from-worker", type=int, help="workers from this id on build another model")
parser.add_argument("--import-error", action="store_true")
parser.add_argument(
    "--damage",
    choices=("parameters", "optimizer"),
    help="where the first frame of a recovery is damaged",
)
parser.add_argument("--fill", type=int, help="at this step the disk of --disk is filled by rank 0")
parser.add_argument("--disk", help="a directory there")
parser.add_argument("--drain", type=int, help="the job is drained at this step")
parser.add_argument("--sleep", type=float, default=0.0, help="seconds each slot takes longer")
parser.add_argument("--ballast", type=int, help="bytes of a buffer that only makes the state larger")
parser.add_argument("--exit-early", type=int, help="sys.exit(7) at this step on every worker")
arguments = parser.parse_args()

if arguments.import_error:
    import a_module_that_is_missing  # noqa: F401

worker = int(os.environ.get("HPRESIL_WORKER", "0"))
odd = arguments.odd_from_worker is not None and worker >= arguments.odd_from_worker
run = hpresil.init(hpresil.Config(slots=4, microbatch_size=2))
model = nn.Sequential(nn.Linear(4, 9 if odd else 8), nn.Dropout(0.1), nn.Linear(9 if odd else 8, 1))
if arguments.ballast:
    model.register_buffer("ballast", torch.arange(arguments.ballast // 8))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
run.track(model=model, optimizer=optimizer)

marker = os.path.join(os.environ.get("HPRESIL_RUN_DIR", "."), "damaged")


class BadCopies:
    """The native core, which damages one section of the first frame that this worker fills in a recovery."""

    def __init__(self) -> None:
        self.calls = -1

    def __getattr__(self, name: str) -> object:
        return getattr(native, name)

    def copy_many(self, pairs: list[tuple[int, int, int]], threads: int) -> list[int]:
        sums = native.copy_many(pairs, threads)
        self.calls += run.generation > 1
        if self.calls == SECTIONS.index(arguments.damage) and not os.path.exists(marker):
            open(marker, "w").close()
            ctypes.c_ubyte.from_address(pairs[-1][0]).value ^= 1
        return sums


SECTIONS = ("parameters", "optimizer")  # those of this model that hold tensors, in the order of a frame
if arguments.damage:
    filling.native = BadCopies()


def data(step: int, slot: int, j: int) -> tuple[int, torch.Tensor]:
    time.sleep(arguments.sleep)
    return slot, torch.randn(2, 4, generator=torch.Generator().manual_seed(step * 10 + slot))


def fill(directory: str) -> None:
    with open(os.path.join(directory, "filler"), "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


for step in run.steps(arguments.steps):
    if run.rank == 0 and step.index == arguments.fill:
        fill(arguments.disk)
    if run.rank == 0 and step.index == arguments.drain:
        os.kill(int(os.environ["HPRESIL_AGENT_PID"]), signal.SIGTERM)
    with step:
        for slot, x in step.microbatches(data):
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            if (step.index, slot) == (arguments.nan, 1):
                loss = loss * math.nan
            if (step.index, slot) == (arguments.bug, 1):
                raise KeyError("the user's own bug")
            if step.index == arguments.exit_early:
                raise SystemExit(7)
            step.backward(loss)
        if run.rank == 1 and step.index == arguments.late:
            time.sleep(0.5)
        step.apply(optimizer, max_norm=1.0)
        if step.index == arguments.diverge and run.rank == 1:
            with torch.no_grad():
                model[0].bias.add_(1e-3)
    wait_for_spares(step.index, step.committed)
    run.log(loss=step.loss)
print("finished", run.rank, flush=True)
