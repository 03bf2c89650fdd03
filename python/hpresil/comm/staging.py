"""Receive buffers that are kept between steps: faulting fresh pages in costs more than the sums.

A buffer is taken for one exchange and given back after the works that write to it have ended. After a failed
exchange its works are destroyed first: gloo writes through weak pointers and a work's destructor waits for a
write under way, so a destroyed work writes nothing any more.

Thread safety: all functions from any thread.
"""

from __future__ import annotations

import threading

import torch

_lock = threading.Lock()
_free: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}


def take(elements: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a 1-D contiguous buffer of exactly ``elements`` elements with arbitrary contents.

    Kept buffers of the same type and device but another size are freed.
    """
    with _lock:
        kept = _free.setdefault((dtype, device), [])
        kept[:] = [buffer for buffer in kept if buffer.numel() == elements]
        if kept:
            return kept.pop()
    return torch.empty(elements, dtype=dtype, device=device)


def give(buffer: torch.Tensor) -> None:
    """Return a buffer that nothing writes to any more."""
    with _lock:
        _free.setdefault((buffer.dtype, buffer.device), []).append(buffer)
