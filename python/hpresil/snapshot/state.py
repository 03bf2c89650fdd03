"""One version of everything tracked: a list of named tensors and the python values around them.

`State` is what `Tracked.capture` returns, what a frame and a checkpoint hold, and what
`Tracked.restore` takes. Tensors come in the order of `preface.SECTIONS`, so that parameters can travel first.
A captured state refers to live tensors and copies nothing: it is true only as long as those do not
change. ``values`` is the rest as bytes (see `values.encode`), a tensor in it being its index.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from hpresil.base.errors import DataError
from hpresil.snapshot.values import TensorRef, decode, dtype_name, encode

_RAW = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a state: its unique name, and its values in logical (row-major) order."""

    name: str
    section: str
    tensor: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's dtype."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's logical shape."""
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Size of the logical contents in bytes."""
        return self.tensor.numel() * self.tensor.element_size()

    def describe(self) -> str:
        """Return dtype and shape in words, e.g. ``float32 [3, 4]``."""
        return f"{dtype_name(self.dtype)} {list(self.shape)}"


@dataclass(frozen=True)
class State:
    """Named tensors in the order of `SECTIONS`, and the python values as MessagePack.

    ``owner`` keeps alive what the tensors are views of, if anything.
    """

    tensors: list[Entry]
    values: bytes
    owner: object = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors and values, without padding."""
        return sum(entry.nbytes for entry in self.tensors) + len(self.values)

    def structure(self) -> dict[str, Any]:
        """Return the python values; a `TensorRef` stands for each tensor."""
        root = decode(self.values, lambda ref: ref)
        if type(root) is not dict or not all(type(root.get(key)) is dict for key in _PARTS):
            raise DataError("the python values of this state are not those of a snapshot")
        return root

    def digest(self) -> str:
        """Return a BLAKE2b over names, dtypes, shapes, raw bytes and python values.

        Equal exactly if all of these are. Where a tensor lives and its strides do not count, nor
        does the order of plain dictionaries.
        """
        summed = hashlib.blake2b(digest_size=32)
        for entry in sorted(self.tensors, key=lambda entry: entry.name):
            head = f"{entry.name}\0{dtype_name(entry.dtype)}\0{list(entry.shape)}\0{entry.nbytes}\0"
            summed.update(head.encode("utf-8", "surrogatepass"))
            if entry.nbytes:
                summed.update(host_bytes(entry.tensor).numpy().data)
        summed.update(self._canonical_values())
        return summed.hexdigest()

    def _canonical_values(self) -> bytes:
        root = decode(self.values, lambda ref: (_TENSOR, self.tensors[ref.place].name, *ref[1:]))
        return encode({key: root[key] for key in PARTS}, "state", _no_tensor, canonical=True)


PARTS = ("extra", "optimizers", "objects")
_PARTS = (*PARTS, "layout")
_TENSOR = "\0tensor"


def _no_tensor(tensor: torch.Tensor, path: str) -> int:
    raise AssertionError(f"{path}: every tensor was replaced by its name")


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` as integers of the same size and strides: copies of it keep every bit.

    A copy between floating-point tensors may quiet a NaN or normalise a bool; one between integers
    cannot. Shares memory and version counter with ``tensor``.
    """
    bare = tensor.detach()
    if bare.is_conj():
        bare = bare.resolve_conj()
    if bare.is_neg():
        bare = bare.resolve_neg()
    if bare.dtype == torch.complex128:
        bare = torch.view_as_real(bare)
    return bare.view(_RAW[bare.element_size()])


def host_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the logical contents of ``tensor`` as uint8 on the host; no copy if that is how they lie."""
    flat = raw(tensor).cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8)


__all__ = ["PARTS", "Entry", "State", "TensorRef", "host_bytes", "raw"]
