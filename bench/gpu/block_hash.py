"""The block hash on the device, beside a copy within the device's memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from bench import rows as figures

from hpresil import native


def rows(quick: bool) -> Iterator[figures.Row]:
    for mib in (16, 256) if quick else (16, 256, 4096):
        data = torch.randint(0, 256, (mib << 20,), dtype=torch.uint8, device="cuda")
        copy = torch.empty_like(data)

        def copied(copy=copy, data=data) -> None:
            copy.copy_(data)
            torch.cuda.synchronize()

        spent = figures.take_turns(
            {
                "copy": copied,
                "hash": lambda data=data: native.cuda_block_hashes(data.data_ptr(), data.nbytes),
            },
            repeats=9,
            warm_up=2,
        )
        rate = {name: [data.nbytes / 1e9 / second for second in each] for name, each in spent.items()}
        floor = 2 * statistics.median(rate["copy"])  # a copy reads and writes, a hash reads
        yield figures.row(
            "gpu", f"{mib} MiB", "block hash, with its list and result", metric="rate", unit="GB/s",
            figures=rate["hash"], floor=floor,
        )  # fmt: skip
