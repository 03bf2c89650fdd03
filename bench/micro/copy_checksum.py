"""The fused copy + CRC-32C against its floors: `python -m bench micro copy_checksum`.

Both ends are memory files, as a snapshot frame is one, and faulted in. The floors of the copies are one plain
memcpy, the same on as many threads, and streaming stores without checksum, which is what the machine can do;
on one that does other work only rates by processor time mean much.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
from collections.abc import Callable, Iterator

from bench.rows import BY_TIMES, Row, calls_in_turns, row

from hpresil import native

SUITE = "micro"
MIB = 1 << 20
GOALS = {("streaming stores", 1): 0.9, ("streaming stores", 2): 0.9, ("memcpy", 2): 1.5}
"""What copy_crc32c is to reach of that floor's rate, both on that many threads."""
Copy = Callable[[int, int, int], object]


def memcpy() -> Copy:
    found = ctypes.CDLL(None).memcpy
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return found


def on_two_threads(copy: Copy, dst: int, src: int, nbytes: int) -> None:
    half = nbytes // 2
    other = threading.Thread(target=copy, args=(dst + half, src + half, nbytes - half))
    other.start()
    copy(dst, src, half)
    other.join()


def named(what: str, threads: int) -> str:
    return what if threads == 1 else f"{what}, {threads} threads"


def floors(dst: int, src: int, nbytes: int) -> dict[str, Callable[[], object]]:
    copy = memcpy()
    return {
        "memcpy": lambda: copy(dst, src, nbytes),
        named("memcpy", 2): lambda: on_two_threads(copy, dst, src, nbytes),
        "streaming stores": lambda: native.stream_copy(dst, src, nbytes),
        named("streaming stores", 2): lambda: native.stream_copy(dst, src, nbytes, 2),
    }


def contenders(dst: int, src: int, nbytes: int, most_threads: int) -> dict[str, Callable[[], object]]:
    copy, found = memcpy(), floors(dst, src, nbytes)
    found["memcpy, then crc32c"] = lambda: (copy(dst, src, nbytes), native.crc32c(dst, nbytes))
    for level in native.cpu_levels():
        found[f"copy_crc32c {level}"] = lambda level=level: native.copy_crc32c(dst, src, nbytes, level=level)
    for level in native.cpu_levels():
        found[f"crc32c alone {level}"] = lambda level=level: native.crc32c(src, nbytes, level=level)
    for threads in range(2, most_threads + 1):
        found[f"copy_crc32c {native.cpu_level()}, {threads} threads"] = lambda threads=threads: (
            native.copy_crc32c(dst, src, nbytes, threads)
        )
    count = nbytes // 4
    for level in ("portable", native.cpu_level()):
        found[f"square_sums f4 {level}"] = lambda level=level: native.square_sums(
            src, count, 16384, "f4", level=level
        )
        found[f"add_ordered f4, 2 sources, {level}"] = lambda level=level: native.add_ordered(
            dst, [src, dst], count, "f4", level=level
        )
    return found


def rows(quick: bool) -> Iterator[Row]:
    nbytes = (32 if quick else 512) * MIB
    fds = [native.memfd("bench", nbytes) for _ in range(2)]
    source, target = (native.Mapping(fd, nbytes, populate=True) for fd in fds)
    with memoryview(source) as view:
        block = os.urandom(MIB)
        for at in range(0, nbytes, MIB):
            view[at : at + MIB] = block
    runs = contenders(target.address, source.address, nbytes, min(4, os.cpu_count() or 1))
    spent = calls_in_turns(runs, repeats=3 if quick else 7)
    for mapping, fd in zip((source, target), fds, strict=True):
        mapping.close()
        os.close(fd)
    case = f"{nbytes // MIB} MiB"
    for which, by in enumerate(BY_TIMES):
        rates = {name: [nbytes / 1e9 / one[which] for one in each] for name, each in spent.items()}
        floor = statistics.median(rates["memcpy"])
        for name, each in rates.items():
            beside = None if name == "memcpy" else floor
            yield row(SUITE, case, name, metric=f"rate{by}", unit="GB/s", figures=each, floor=beside)
        if not by:
            yield from _over_floors(case, rates)


def _over_floors(case: str, rates: dict[str, list[float]]) -> Iterator[Row]:
    for (floor, threads), goal in GOALS.items():
        name = named(f"copy_crc32c {native.cpu_level()}", threads)
        if name in rates:
            pairs = zip(rates[name], rates[named(floor, threads)], strict=True)
            figures = [mine / theirs for mine, theirs in pairs]
            metric = f"rate over {floor}"
            yield row(SUITE, case, name, metric=metric, unit="ratio_up", figures=figures, goal=goal)
