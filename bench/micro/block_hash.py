"""The block hash beside CRC-32C and the floor, reading the same bytes: `python -m bench micro block_hash`.

The floor is one sum over the bytes as 64-bit words by NumPy, which reads them and does little else.
Contenders take turns; a second figure is in bytes per second of processor time, which other work on the
machine distorts less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from bench import rows as figures

from hpresil import native


def turns(contenders: dict[str, Callable[[], object]], runs: int) -> dict[str, list[tuple[float, float]]]:
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for run in range(runs + 1):
        for name, call in contenders.items():
            begun, worked = time.perf_counter(), time.process_time()
            call()
            if run:  # the first warms up
                spent[name].append((time.perf_counter() - begun, time.process_time() - worked))
    return spent


def peer(data: np.ndarray) -> dict[str, Callable[[], object]]:
    try:
        import xxhash
    except ImportError:
        return {}
    return {"xxh3_64 (xxhash)": lambda: xxhash.xxh3_64_intdigest(data)}


def rows(quick: bool) -> Iterator[figures.Row]:
    nbytes = (32 if quick else 256) << 20
    data = np.random.default_rng(0).integers(0, 2**63, nbytes // 8, np.int64)
    contenders: dict[str, Callable[[], object]] = {"a sum by NumPy, the floor": data.sum}
    for level in native.cpu_levels():
        contenders[f"block_hashes {level}"] = lambda level=level: native.block_hashes(data, level=level)
    contenders["block_hashes, 2 threads"] = lambda: native.block_hashes(data, 2)
    contenders["crc32c"] = lambda: native.crc32c(data)
    peers = peer(data)
    if not peers:
        yield figures.missing(
            "block_hash", f"{nbytes >> 20} MiB", "xxh3_64 (xxhash)", "speed", "GB/s", why="pip install xxhash"
        )
    spent = turns(contenders | peers, 5 if quick else 9)
    for which, unit in enumerate(("GB/s", "GB per processor second")):
        rate = {name: [nbytes / 1e9 / one[which] for one in each] for name, each in spent.items()}
        floor = statistics.median(rate["a sum by NumPy, the floor"])
        best = max((statistics.median(rate[name]) for name in peers), default=None)
        for name, each in rate.items():
            yield figures.row(
                "block_hash", f"{nbytes >> 20} MiB", name, metric="speed", unit=unit, figures=each,
                floor=floor, peer=None if name in peers else best,
            )  # fmt: skip
