"""The device snapshot of many small tensors, beside one copy of as many bytes, and a copy a tensor.

``begin`` is what the training thread pays; ``done`` is until the frame holds everything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from bench import rows as figures

from hpresil import native

WAIT_S = 60.0
FLOOR, OURS = "one copy, the floor", "snapshot stream, hashed"
Timed = Callable[[], tuple[float, float]]
Parts = list[tuple[torch.Tensor, torch.Tensor]]
"""Where each tensor goes in host memory, and the tensor."""


def state(quick: bool) -> list[torch.Tensor]:
    """Return the shapes of a transformer: some large matrices, and several times as many small vectors."""
    layers, width = (8, 1024) if quick else (48, 2048)
    shapes = [(4 * width, width), (width, 4 * width), (3 * width, width), (width, width), *[(width,)] * 12]
    return [torch.randn(shape, device="cuda") for _ in range(layers) for shape in shapes]


def timed(begin: Callable[[], object], wait: Callable[[], object]) -> tuple[float, float]:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    begin()
    submitted = time.perf_counter() - begun
    wait()
    return submitted, time.perf_counter() - begun


def contenders(stream: native.SnapshotStream, host: torch.Tensor, parts: Parts) -> dict[str, Timed]:
    """Return what takes turns; each call returns the seconds of its begin, and until it was done."""
    whole = torch.empty_like(host, device="cuda")

    def one_by_one() -> None:
        for part, tensor in parts:
            part.copy_(tensor.view(-1), non_blocking=True)

    def begin() -> None:
        stream.begin(torch.cuda.current_stream().cuda_stream)

    return {
        FLOOR: partial(timed, lambda: host.copy_(whole, non_blocking=True), torch.cuda.synchronize),
        "a copy a tensor (torch)": partial(timed, one_by_one, torch.cuda.synchronize),
        OURS: partial(timed, begin, lambda: stream.wait(WAIT_S)),
    }


def rows(quick: bool) -> Iterator[figures.Row]:
    tensors = state(quick)
    nbytes = sum(tensor.nbytes for tensor in tensors)
    memory = native.Mapping(native.memfd("bench", nbytes), nbytes, populate=True)
    stream = native.SnapshotStream(0)
    stream.register_memory(memory.address, nbytes)
    host = torch.frombuffer(memory, dtype=torch.float32)
    parts = list(zip(host.split([tensor.numel() for tensor in tensors]), tensors, strict=True))
    stream.set_copies([(part.data_ptr(), one.data_ptr(), one.nbytes) for part, one in parts])
    turns = figures.calls_in_turns(contenders(stream, host, parts), repeats=6 if quick else 10)
    case = f"{nbytes / 1e9:.2f} GB in {len(tensors)} tensors"
    for which, metric in enumerate(("begin", "done")):
        spent = {name: [call.returned[which] * 1e3 for call in calls] for name, calls in turns.items()}
        floor = statistics.median(spent[FLOOR]) if metric == "done" else None
        for name, each in spent.items():
            yield figures.row("gpu", case, name, metric=metric, unit="ms", figures=each, floor=floor)
    if stream.notes:
        yield figures.missing("gpu", "notes", OURS, "done", "ms", why="; ".join(stream.notes))
