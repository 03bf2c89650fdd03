"""Elementwise arithmetic and sums of squares whose bits depend on the values alone.

The problem: the same addition can give other bits in another thread (flush-denormal is a per-thread mode),
and a library's sum of many numbers is split by thread count and vector width. The design: on the CPU
everything runs in the calling thread, inside `plain_arithmetic`; sums have a fixed order.

Sum of squares of a block on the CPU: element i belongs to lane i mod 16; lanes add up in ascending order in
float64, then lane j takes in lane j + 8, j + 4, j + 2, j + 1. On other devices: the second half is added to
the first until one is left, elementwise operations only. Each is equal for every world size and every
number of blocks in a call; the two are not promised to equal each other.

Vectors of one call have one length, dtype (float32 or float64) and device. Thread rule: any thread; on a
device everything goes into torch's current stream of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from hpresil import native

BLOCK = 16384  # elements
_TYPES: dict[str, Literal["f4", "f8"]] = {"f": "f4", "d": "f8"}
_SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)

Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Vector: TypeAlias = np.ndarray[Any, Any] | torch.Tensor
"""1-D numbers: NumPy on the CPU, whose operations stay in the calling thread, else torch."""


def vector(values: torch.Tensor) -> Vector:
    """Return the same memory as something to calculate with; ``values`` are 1-D."""
    return values.numpy() if values.device.type == "cpu" else values


def scratch(elements: int, like: Vector) -> Vector:
    """Return ``elements`` elements of uninitialised memory, of the type and on the device of ``like``."""
    if isinstance(like, np.ndarray):
        return np.empty(elements, like.dtype)
    return torch.empty(elements, dtype=like.dtype, device=like.device)


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


def add(out: Vector, left: Vector, right: Vector) -> None:
    """Compute ``out = left + right`` elementwise; call inside `plain_arithmetic`."""
    if isinstance(out, np.ndarray):
        np.add(left, right, out=out)
    else:
        torch.add(left, right, out=out)  # type: ignore[arg-type]  # all three are of one kind


def copy(out: Vector, values: Vector) -> None:
    """Copy ``values`` bit for bit."""
    if isinstance(out, np.ndarray):
        np.copyto(out, values)
    else:
        out.copy_(values)  # type: ignore[arg-type]  # both are of one kind


def divide(values: Vector, total: float) -> None:
    """Compute ``values = values / total`` in place: a true division in the vector's own type."""
    if isinstance(values, np.ndarray):
        np.divide(values, values.dtype.type(total), out=values)
    else:  # a divisor on the host would become a multiplication by its inverse
        values.div_(torch.tensor(total, dtype=values.dtype, device=values.device))


def square_sums(values: Vector, out: Doubles) -> None:
    """Write the sum of squares of each block of ``values`` into ``out``; waits for a device.

    Args:
        values: Contiguous, of whole blocks.
        out: One float64 for each block.
    """
    if isinstance(values, np.ndarray):
        kind = _TYPES[values.dtype.char]
        out[:] = native.square_sums(values.ctypes.data, len(values), BLOCK, kind)
    else:
        out[:] = halving_square_sums(values).cpu().numpy()


def halving_square_sums(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of squares of each block of ``values`` by halves, on its device: 1-D float64."""
    wide = values.to(torch.float64).view(-1, BLOCK)
    wide = wide * wide
    while wide.shape[1] > 1:
        half = wide.shape[1] // 2
        wide = wide[:, :half] + wide[:, half:]
    return wide[:, 0]


def tree_sum(values: Doubles) -> float:
    """Return the sum of a vector over the canonical tree: pairs, an odd last one is promoted; 0 for none."""
    level = values
    while len(level) > 1:
        pairs = len(level) // 2
        above = np.empty(len(level) - pairs)
        np.add(level[0 : 2 * pairs : 2], level[1 : 2 * pairs : 2], out=above[:pairs])
        above[pairs:] = level[2 * pairs :]
        level = above
    return float(level[0]) if len(level) else 0.0
