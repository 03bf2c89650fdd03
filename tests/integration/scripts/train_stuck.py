"""A tiny regression of which one worker gets stuck once, in the way that is asked for."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time
from pathlib import Path

import torch
from torch import nn

import hpresil

FOREVER_S = 300

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--stuck", choices=("python", "native", "loop"))
parser.add_argument("--at", type=int, default=5, help="the step")
parser.add_argument("--rank", type=int, default=2)
arguments = parser.parse_args()

run = hpresil.init(hpresil.Config(slots=4, microbatch_size=2))
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
run.track(model=model, optimizer=optimizer)


def data(step: int, slot: int, j: int) -> tuple[int, torch.Tensor]:
    return slot, torch.randn(2, 4, generator=torch.Generator().manual_seed(step * 10 + slot))


def stand_still_here() -> None:
    """Never return; only a kill ends it."""
    if arguments.stuck == "native":
        ctypes.PyDLL(None).sleep(FOREVER_S)  # keeps the interpreter lock
    end = time.monotonic() + FOREVER_S
    while time.monotonic() < end:
        if arguments.stuck == "python":
            time.sleep(end - time.monotonic())


def get_stuck_once(step: int) -> None:
    if not arguments.stuck or run.rank != arguments.rank or step != arguments.at:
        return
    try:
        fd = os.open(Path(os.environ["HPRESIL_RUN_DIR"]) / "stuck", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(fd, json.dumps({"pid": os.getpid(), "step": step}).encode())
    os.close(fd)
    stand_still_here()


for step in run.steps(arguments.steps):
    with step:
        for _, x in step.microbatches(data):
            get_stuck_once(step.index)
            step.backward((model(x) - x.sum(1, keepdim=True)).square().mean())
        step.apply(optimizer, max_norm=1.0)
    run.log(loss=step.loss)
