"""The block hash beside CRC-32C and the floor, reading the same bytes: `python -m bench micro block_hash`.

The floor is one sum over the bytes as 64-bit words by NumPy, which reads them and does little else.
Contenders take turns; a second rate counts seconds of processor time, which other work on the machine
distorts less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import numpy as np
from bench import rows as figures

from hpresil import native


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
            "micro", f"{nbytes >> 20} MiB", "xxh3_64 (xxhash)", "rate", "GB/s", why="pip install xxhash"
        )
    spent = figures.calls_in_turns(contenders | peers, repeats=5 if quick else 9)
    for which, by in enumerate(figures.BY_TIMES):
        rate = {name: [nbytes / 1e9 / one[which] for one in each] for name, each in spent.items()}
        floor = statistics.median(rate["a sum by NumPy, the floor"])
        best = max((statistics.median(rate[name]) for name in peers), default=None)
        for name, each in rate.items():
            yield figures.row(
                "micro", f"{nbytes >> 20} MiB", name, metric=f"rate{by}", unit="GB/s", figures=each,
                floor=floor, peer=None if name in peers else best,
            )  # fmt: skip
