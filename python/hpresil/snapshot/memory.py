"""Memory files seen as tensors, and the seal word in them.

A tensor over a mapping keeps the mapping open, so no view outlives its memory. Tensors over a
read-only mapping look writable to torch; writing to one is a crash.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch

from hpresil import native
from hpresil.base.errors import NativeError, TransferFailed
from hpresil.snapshot import preface
from hpresil.snapshot.values import dtype_named


def map_file(fd: int, *, writable: bool) -> native.Mapping:
    """Map a whole memory file; TransferFailed if it cannot even hold a header."""
    nbytes = os.fstat(fd).st_size
    if nbytes < preface.HEADER_BYTES:
        raise TransferFailed(f"the frame is truncated: {nbytes} bytes are less than a header")
    try:
        return native.Mapping(fd, nbytes, writable=writable)
    except NativeError as error:
        raise TransferFailed(f"the frame cannot be mapped: {error}") from error


def as_tensor(mapping: native.Mapping) -> torch.Tensor:
    """Return a mapping as a uint8 tensor; a read-only one too, about which torch would warn.

    The tensor holds on to ``window``, which holds a view that keeps the mapping open.
    """
    window: Any = type("Window", (ctypes.Array,), {"_type_": ctypes.c_ubyte, "_length_": mapping.nbytes})
    window = window.from_address(mapping.address)
    window.keeps = memoryview(mapping)
    return torch.frombuffer(window, dtype=torch.uint8)


def view_of(base: torch.Tensor, row: preface.Row) -> torch.Tensor:
    """Return the tensor of a manifest's row in the frame that ``base`` is the bytes of."""
    return base[row.offset : row.offset + row.nbytes].view(dtype_named(row.dtype)).view(row.shape)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether the bytes of ``tensor`` lie in host memory in logical order."""
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def set_seal(memory: memoryview, word: int) -> None:
    """Write the seal word in one store of eight bytes."""
    memory[preface.SEAL_OFFSET : preface.HEADER_BYTES].cast("Q")[0] = word


def previous_fills(memory: memoryview) -> int:
    """Return how often this memory was filled, 0 if it never was."""
    return _field(memory, 6)


def claimed_bytes(memory: memoryview) -> int:
    """Return the size of the frame as its header has it, which is not verified; 0 without a header."""
    return _field(memory, 5)


def _field(memory: memoryview, place: int) -> int:
    fixed = preface.FIXED.unpack_from(memory)
    return int(fixed[place]) if fixed[0] == preface.MAGIC and fixed[1] == preface.FORMAT else 0
