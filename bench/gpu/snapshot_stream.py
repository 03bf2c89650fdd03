"""The device snapshot of many small tensors, beside one copy of as many bytes, and a copy a tensor.

``begin`` is what the training thread pays; ``done`` is until the frame holds everything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from bench import rows as figures

from hpresil import native

WAIT_S = 60.0


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


def rows(quick: bool) -> Iterator[figures.Row]:
    tensors = state(quick)
    nbytes = sum(tensor.nbytes for tensor in tensors)
    memory = native.Mapping(native.memfd("bench", nbytes), nbytes, populate=True)
    stream = native.SnapshotStream(0)
    stream.register_memory(memory.address, nbytes)
    host = torch.frombuffer(memory, dtype=torch.float32)
    parts = list(host.split([tensor.numel() for tensor in tensors]))
    stream.set_copies(
        [(part.data_ptr(), one.data_ptr(), one.nbytes) for part, one in zip(parts, tensors, strict=True)]
    )
    whole = torch.empty(nbytes // 4, device="cuda")

    def one_by_one() -> None:
        for part, tensor in zip(parts, tensors, strict=True):
            part.copy_(tensor.view(-1), non_blocking=True)

    contenders = {
        "one copy, the floor": (lambda: host.copy_(whole, non_blocking=True), torch.cuda.synchronize),
        "a copy a tensor (torch)": (one_by_one, torch.cuda.synchronize),
        "snapshot stream, hashed": (
            lambda: stream.begin(torch.cuda.current_stream().cuda_stream),
            lambda: stream.wait(WAIT_S),
        ),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(7 if quick else 11):
        for name, (begin, wait) in contenders.items():
            spent[name].append(timed(begin, wait))
    floor = statistics.median(done for _, done in spent["one copy, the floor"][1:])
    for name, each in spent.items():
        case = f"{nbytes / 1e9:.2f} GB in {len(tensors)} tensors"
        for which, metric in enumerate(("begin", "done")):
            seconds = [one[which] * 1e3 for one in each[1:]]
            yield figures.row(
                "gpu", case, name, metric=metric, unit="ms", figures=seconds,
                floor=floor * 1e3 if metric == "done" else None,
            )  # fmt: skip
    if stream.notes:
        yield figures.missing(
            "gpu", "notes", "snapshot stream, hashed", "done", "ms", why="; ".join(stream.notes)
        )
