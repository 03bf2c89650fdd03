"""Tensors of a state in one safetensors file, written in a stream and read by the library.

The library's own writer keeps a second copy of the whole state in memory; this one copies nothing and
computes the file's checksum on the way. Tensors lie in logical order, those with the largest elements
first, so that each is aligned to its element. A dtype that safetensors cannot express is stored as
bytes with one more dimension; the manifest knows the real one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from hpresil import native
from hpresil.base.errors import DataError
from hpresil.checkpoint.manifest import ADVICE, FileSum, StoredTensor
from hpresil.snapshot.state import Entry, host_bytes
from hpresil.snapshot.values import dtype_named

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


class _Summed:
    """A file that sums what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc = 0
        self.nbytes = 0

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.crc = native.crc32c(data, self.crc)
        self.nbytes += len(data)


def write(file: BinaryIO, entries: list[Entry]) -> FileSum:
    """Write ``entries`` as safetensors to an empty file and return its size and checksum."""
    ordered = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    table, offset = {}, 0
    for entry in ordered:
        known = entry.dtype in NAMES
        shape = list(entry.shape) if known else [*entry.shape, entry.dtype.itemsize]
        span = [offset, offset + entry.nbytes]
        table[entry.name] = {"dtype": NAMES.get(entry.dtype, "U8"), "shape": shape, "data_offsets": span}
        offset += entry.nbytes
    header = json.dumps(table, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    summed = _Summed(file)
    summed.write(len(header).to_bytes(8, "little") + header)
    for entry in ordered:
        if entry.nbytes:
            summed.write(host_bytes(entry.tensor).numpy().data)
    return FileSum(summed.nbytes, f"{summed.crc:08x}")


def read(path: Path, stored: list[StoredTensor]) -> list[Entry]:
    """Return the tensors listed in ``stored`` from the safetensors file at ``path``.

    Raises:
        DataError: The file is no safetensors file, or contradicts the list.
    """
    entries = []
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != {row.name for row in stored}:
                raise DataError(f"{path} does not hold the tensors that its manifest lists; {ADVICE}")
            for row in stored:
                tensor = file.get_tensor(row.name)
                dtype = dtype_named(row.dtype)
                if dtype not in NAMES and tensor.dtype == torch.uint8:
                    tensor = tensor.view(dtype).reshape(row.shape)
                entry = Entry(row.name, row.section, tensor)
                if entry.dtype != dtype or list(entry.shape) != row.shape:
                    raise DataError(f"tensor {row.name} in {path} is {entry.describe()}, the manifest says "
                                    f"{row.dtype} {row.shape}; {ADVICE}")  # fmt: skip
                entries.append(entry)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file ({error}); {ADVICE}") from error
    return entries
