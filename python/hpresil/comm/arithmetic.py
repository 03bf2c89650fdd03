"""Elementwise arithmetic and sums of squares whose bits depend on the values alone.

The problem: the same addition can give other bits in another thread (flush-denormal is a per-thread
mode), and a library's sum of many numbers is split by thread count and vector width. The design:
on the CPU everything runs in the calling thread, inside `plain_arithmetic`; sums have a fixed order.

Sum of squares of a block on the CPU: element i belongs to lane i mod 16; lanes add up in ascending
order in float64, then lane j takes in lane j + 8, j + 4, j + 2, j + 1. On other devices: the second
half is added to the first until one is left, elementwise operations only. Each is equal for every
world size and every number of blocks in a call; the two are not promised to equal each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch

BLOCK = 16384  # elements
_LANES = 16
_TYPES = {torch.float32: "f4", torch.float64: "f8"}
_SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)


def _find_native() -> ModuleType | None:
    try:
        import hpresil.native as found
    except ImportError:
        return None
    return found if hasattr(found, "square_sums") else None


_native: Any = _find_native()


@contextlib.contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Keep denormals and silence NumPy's floating-point warnings in the calling thread."""
    flushing = _SMALLEST_NORMAL * float.fromhex("0x1p-1") == 0.0
    if flushing:
        torch.set_flush_denormal(False)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        if flushing:
            torch.set_flush_denormal(True)


def add(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Compute ``out = left + right`` elementwise; call inside `plain_arithmetic`."""
    if out.device.type == "cpu":
        np.add(left.numpy(), right.numpy(), out=out.numpy())
    else:
        torch.add(left, right, out=out)


def divide(values: torch.Tensor, total: float) -> None:
    """Compute ``values = values / total`` in place: a true division in the tensor's own type."""
    if values.device.type == "cpu":
        own = values.numpy()
        np.divide(own, own.dtype.type(total), out=own)
    else:  # a divisor on the host would become a multiplication by its inverse
        values.div_(torch.tensor(total, dtype=values.dtype, device=values.device))


def square_sums(values: torch.Tensor, out: torch.Tensor) -> None:
    """Write the sum of squares of each block of ``values`` into ``out``, float64 on the CPU."""
    if values.device.type != "cpu":
        out.copy_(halving_square_sums(values))
    elif _native is not None:
        sums = _native.square_sums(values.data_ptr(), values.numel(), BLOCK, _TYPES[values.dtype])
        out.numpy()[:] = sums
    else:
        out.numpy()[:] = lane_square_sums(values)


def lane_square_sums(values: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the CPU's sums of squares without the native core."""
    wide = values.numpy().astype(np.float64).reshape(-1, BLOCK // _LANES, _LANES)
    np.multiply(wide, wide, out=wide)
    lanes = wide[:, 0].copy()
    for row in range(1, wide.shape[1]):
        lanes += wide[:, row]
    width = _LANES // 2
    while width:
        lanes = lanes[:, :width] + lanes[:, width : 2 * width]
        width //= 2
    return lanes[:, 0]


def halving_square_sums(values: torch.Tensor) -> torch.Tensor:
    """Return the sums of squares of each block on any device, by halves."""
    wide = values.to(torch.float64).view(-1, BLOCK)
    wide = wide * wide
    while wide.shape[1] > 1:
        half = wide.shape[1] // 2
        wide = wide[:, :half] + wide[:, half:]
    return wide[:, 0]


def tree_sum(values: torch.Tensor) -> float:
    """Return the sum of a float64 vector over the canonical tree: pairs, an odd last one is promoted."""
    level = values.numpy().copy()
    while len(level) > 1:
        pairs = len(level) // 2
        above = np.empty(len(level) - pairs)
        np.add(level[0 : 2 * pairs : 2], level[1 : 2 * pairs : 2], out=above[:pairs])
        above[pairs:] = level[2 * pairs :]
        level = above
    return float(level[0]) if len(level) else 0.0
