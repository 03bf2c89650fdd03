"""What a snapshot costs the training thread: `python -m bench micro snapshot`.

* 1 GiB in 64 tensors, an idle trainer: how long it is blocked, beside memcpy, streaming stores and DCP's
  async_save.
* The workload of bench/recovery (50 M parameters, Adam, 604 MB) with a snapshot at every step, with none, and
  with DCP's async_save at every step: the three take turns in blocks of steps.
* Copy + CRC-32C beside streaming stores without checksum and beside memcpy, on 1 and 2 threads.

Memory is faulted in and buffers are used again in all of them. DCP writes to files in /dev/shm, which is not
timed where the trainer is idle.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from bench.recovery import workload
from bench.rows import Row, row, take_turns

from hpresil import native
from hpresil.snapshot import Snapshots

SUITE = "snapshot"
MIB = 1 << 20
PAUSE_S = 0.5  # as long as a forward and backward pass that nobody has to wait in


def memcpy() -> Callable[[int, int, int], object]:
    found = ctypes.CDLL(None).memcpy
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return found


def on_two_threads(copy: Callable[[int, int, int], object], dst: int, src: int, nbytes: int) -> None:
    half = nbytes // 2
    other = threading.Thread(target=copy, args=(dst + half, src + half, half))
    other.start()
    copy(dst, src, half)
    other.join()


class Dcp:
    """torch.distributed.checkpoint.async_save as its documentation recommends it, with buffers that are used
    again."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._state = state
        self._place = Path(tempfile.mkdtemp(prefix="hpresil-bench-", dir="/dev/shm"))
        dist.init_process_group("gloo", init_method=f"file://{self._place}/store", rank=0, world_size=1)
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._pending: Any = None
        warnings.filterwarnings("ignore", message="Detected an existing checkpoint")

    def save(self) -> None:
        import torch.distributed.checkpoint as dcp

        self.finish()
        self._pending = dcp.async_save(
            self._state, checkpoint_id=self._place / "saved", async_stager=self._stager
        )

    def finish(self) -> None:
        if self._pending is not None:
            getattr(self._pending, "upload_completion", self._pending).result()
            self._pending = None

    def close(self) -> None:
        self.finish()
        dist.destroy_process_group()
        shutil.rmtree(self._place)


def rows(quick: bool) -> Iterator[Row]:
    yield from rates(quick)
    yield from idle(quick)
    yield from training(quick)


# ------------------------------------------------------------------- an idle trainer


def idle(quick: bool) -> Iterator[Row]:
    size = (64 if quick else 1024) * MIB
    state = {f"p{i}": torch.randn(size // 64 // 4) for i in range(64)}
    target = torch.zeros(size, dtype=torch.uint8)
    part, dst = size // 64, target.data_ptr()
    pairs = [(dst + i * part, tensor.data_ptr(), part) for i, tensor in enumerate(state.values())]
    copy = memcpy()
    spent: dict[str, list[float]] = {}
    peer = Dcp(state)
    with Snapshots(state, threads=1) as snapshots:

        def ours(pause_s: float) -> None:
            begun = time.perf_counter()
            snapshots.begin(1)
            at_begin = time.perf_counter()
            time.sleep(pause_s)
            resumed = time.perf_counter()
            snapshots.wait()
            kind = "paused" if pause_s else "at once"
            spent.setdefault(kind, []).append(at_begin - begun + time.perf_counter() - resumed)

        def theirs() -> None:
            begun = time.perf_counter()
            peer.save()
            spent.setdefault("dcp", []).append(time.perf_counter() - begun)
            peer.finish()

        runs: dict[str, Callable[[], object]] = {
            "memcpy": lambda: [copy(*pair) for pair in pairs],
            "streaming stores, 1 thread": lambda: [native.stream_copy(*pair) for pair in pairs],
            "streaming stores, 2 threads": lambda: [native.stream_copy(*pair, threads=2) for pair in pairs],
            "paused": lambda: ours(0.0 if quick else PAUSE_S),
            "at once": lambda: ours(0.0),
            "dcp": theirs,
        }
        times = take_turns(runs, repeats=3 if quick else 7, warm_up=2)
    peer.close()
    yield from _idle_rows(f"{size // MIB} MiB, idle trainer", times, {k: v[2:] for k, v in spent.items()})


def _idle_rows(case: str, times: dict[str, list[float]], spent: dict[str, list[float]]) -> Iterator[Row]:
    def one(name: str, seconds: list[float], **more: float | None) -> Row:
        figures = [1e3 * second for second in seconds]
        return row(SUITE, case, name, metric="training thread blocked", unit="ms", figures=figures, **more)

    floor = 1e3 * statistics.median(times["memcpy"])
    peer = 1e3 * statistics.median(spent["dcp"])
    for name in ("memcpy", "streaming stores, 1 thread", "streaming stores, 2 threads"):
        yield one(f"{name} (a floor)", times[name])
    beside = {"floor": floor, "goal": 25.0, "peer": peer}
    if "paused" in spent:
        yield one(f"hpresil, next optimizer step {PAUSE_S:g} s later", spent["paused"], **beside)
    yield one("hpresil, next optimizer step at once", spent["at once"], **beside)
    yield one("DCP async_save, buffers used again", spent["dcp"], floor=floor)


# ------------------------------------------------------------------- during training


class Training:
    def __init__(self, quick: bool) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(256, 256) if quick else workload.build()
        self.width = 256 if quick else workload.WIDTH
        self.optimizer = workload.adam(self.model)
        self.number = 0
        self.step(lambda: None)

    def step(self, before_optimizer: Callable[[], object]) -> float:
        """Make one step and return how long ``before_optimizer`` took."""
        inputs = workload.batch(self.number, 0)[:, : self.width]
        self.number += 1
        workload.loss_of(self.model(inputs)).backward()
        begun = time.perf_counter()
        before_optimizer()
        waited = time.perf_counter() - begun
        self.optimizer.step()
        self.optimizer.zero_grad()
        return waited

    def tensors(self) -> dict[str, torch.Tensor]:
        found = dict(self.model.named_parameters())
        for index, state in enumerate(self.optimizer.state.values()):
            found |= {f"{index}.{key}": value for key, value in state.items()}
        return {name: tensor.detach() for name, tensor in found.items()}


def training(quick: bool) -> Iterator[Row]:
    threads = torch.get_num_threads()
    made = Training(quick)
    torch.set_num_threads(1)
    peer = Dcp(made.tensors())
    blocks, steps = (2, 3) if quick else (10, 8)
    times: dict[str, list[float]] = {}
    waits: list[float] = []
    begins: list[float] = []
    with Snapshots({"model": made.model, "optimizer": made.optimizer}, threads=1) as snapshots:

        def timed(kind: str, count: int, before: Callable[[], object], after: Callable[[], object]) -> None:
            taken = []
            for _ in range(count):
                begun = time.perf_counter()
                waited = made.step(before)
                stepped = time.perf_counter()
                after()
                ended = time.perf_counter()
                taken.append(1e3 * (ended - begun))
                if kind == "hpresil":
                    waits.append(1e3 * waited)
                    begins.append(1e3 * (ended - stepped))
            times.setdefault(kind, []).append(statistics.median(taken[1:]))

        for block in range(1 + blocks):
            timed("none", steps, lambda: None, lambda: None)
            timed("hpresil", steps, snapshots.wait, lambda: snapshots.begin(made.number))
            snapshots.wait()
            if block % 3 == 1:
                timed("dcp", 3, lambda: None, peer.save)
                peer.finish()
            if block == 0:
                times.clear()
    peer.close()
    torch.set_num_threads(threads)
    yield from _training_rows("50 M parameters, Adam" if not quick else "small", times, waits, begins)


def _training_rows(
    case: str, times: dict[str, list[float]], waits: list[float], begins: list[float]
) -> Iterator[Row]:
    def one(name: str, figures: list[float], metric: str, unit: str = "ms", **more: float | None) -> Row:
        return row(SUITE, case, name, metric=metric, unit=unit, figures=figures, **more)

    plain = statistics.median(times["none"])
    peer = statistics.median(times["dcp"])
    longer = [100 * (a / b - 1) for a, b in zip(times["hpresil"], times["none"], strict=True)]
    yield one("no snapshots", times["none"], "step")
    yield one("hpresil, every step", times["hpresil"], "step", floor=plain, goal=1.01 * plain, peer=peer)
    yield one("DCP async_save, every step", times["dcp"], "step", floor=plain)
    yield one("hpresil, every step", longer, "longer than the block without", "%", goal=1.0)
    yield one("hpresil, every step", begins, "of it in begin")
    yield one("hpresil, every step", waits, "of it waiting before the optimizer")


# ------------------------------------------------------------------- the copy


def rates(quick: bool) -> Iterator[Row]:
    nbytes = (32 if quick else 512) * MIB
    fds = [native.memfd("bench", nbytes) for _ in range(2)]
    source, target = (native.Mapping(fd, nbytes, populate=True) for fd in fds)
    with memoryview(source) as view:
        block = os.urandom(MIB)
        for at in range(0, nbytes, MIB):
            view[at : at + MIB] = block
    dst, src, copy = target.address, source.address, memcpy()
    runs: dict[str, Callable[[], object]] = {
        "memcpy, 1 thread": lambda: copy(dst, src, nbytes),
        "memcpy, 2 threads": lambda: on_two_threads(copy, dst, src, nbytes),
        "streaming stores, 1 thread": lambda: native.stream_copy(dst, src, nbytes),
        "streaming stores, 2 threads": lambda: native.stream_copy(dst, src, nbytes, 2),
        "copy + CRC-32C, 1 thread": lambda: native.copy_crc32c(dst, src, nbytes),
        "copy + CRC-32C, 2 threads": lambda: native.copy_crc32c(dst, src, nbytes, 2),
    }
    times = take_turns(runs, repeats=3 if quick else 15)
    for mapping, fd in zip((source, target), fds, strict=True):
        mapping.close()
        os.close(fd)
    case = f"{nbytes // MIB} MiB, copy"
    for name, seconds in times.items():
        figures = [nbytes / second / 1e9 for second in seconds]
        yield row(SUITE, case, name, metric="rate", unit="GB/s", figures=figures)
    for count in ("1 thread", "2 threads"):
        for floor, goal in (("streaming stores", 0.9), ("memcpy", 1.5 if count == "2 threads" else None)):
            pairs = zip(times[f"{floor}, {count}"], times[f"copy + CRC-32C, {count}"], strict=True)
            ratios = [theirs / mine for theirs, mine in pairs]
            name = f"copy + CRC-32C, {count}"
            yield row(SUITE, case, name, metric=f"rate over {floor}", unit="1", figures=ratios, goal=goal)
