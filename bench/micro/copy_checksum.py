"""The fused copy + CRC-32C against its floor: `python bench/micro/copy_checksum.py [--mib N] [--json FILE]`.

The floor is one plain memcpy into memory that is faulted in already. Source: anonymous memory.
Destination: a memory file, as a snapshot frame is. Each figure is the median over rounds; contenders
take turns within a round, so that a busy neighbour hits all of them. On a machine that does other work
only the last column means much: bytes per second of processor time.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from hpresil import native

MIB = 1 << 20


def contenders(dst: int, src: int, nbytes: int, most_threads: int) -> dict[str, Callable[[], object]]:
    memcpy = ctypes.CDLL(None).memcpy
    memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    found: dict[str, Callable[[], object]] = {"memcpy, the floor": lambda: memcpy(dst, src, nbytes)}
    found["memcpy, then crc32c"] = lambda: (memcpy(dst, src, nbytes), native.crc32c(dst, nbytes))
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


class Rate(NamedTuple):
    gbytes_per_s: float
    gbytes_per_cpu_s: float


def measure(mib: int, rounds: int) -> dict[str, Rate]:
    nbytes = mib * MIB
    fds = [native.memfd("bench", nbytes) for _ in range(2)]
    source, target = (native.Mapping(fd, nbytes, populate=True) for fd in fds)
    with memoryview(source) as view:
        block = os.urandom(MIB)
        for at in range(0, nbytes, MIB):
            view[at : at + MIB] = block
    times: dict[str, list[tuple[float, float]]] = {}
    runs = contenders(target.address, source.address, nbytes, min(4, os.cpu_count() or 1))
    for _ in range(rounds):
        for name, call in runs.items():
            begun, cpu_begun = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - begun, time.process_time() - cpu_begun
            times.setdefault(name, []).append(spent)
    for mapping, fd in zip((source, target), fds, strict=True):
        mapping.close()
        os.close(fd)
    medians = {name: map(statistics.median, zip(*each, strict=True)) for name, each in times.items()}
    return {name: Rate(*(nbytes / seconds / 1e9 for seconds in each)) for name, each in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512, help="size of the copy (512)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the median counts (7)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    rates = measure(args.mib, args.rounds)
    floor = next(iter(rates.values()))
    print(f"| {args.mib} MiB | GB/s | of the floor | GB per CPU second | of the floor |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rate in rates.items():
        shares = [mine / its for mine, its in zip(rate, floor, strict=True)]
        print(f"| {name} | {rate[0]:.1f} | {shares[0]:.2f} | {rate[1]:.1f} | {shares[1]:.2f} |")
    if args.json:
        with open(args.json, "w") as file:
            figures = {name: rate._asdict() for name, rate in rates.items()}
            json.dump({"mib": args.mib, "rounds": args.rounds, "rates": figures}, file, indent=1)


if __name__ == "__main__":
    main()
