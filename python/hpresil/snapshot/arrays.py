"""Named arrays as state: torch, NumPy, CuPy and whatever else shares its memory, without a copy.

An array comes as a torch tensor, through DLPack, through ``__cuda_array_interface__`` or as a buffer, and is
seen as a tensor over the same memory: a snapshot reads it there, a restore writes it there. What cannot be
seen so, or could not be written, is refused when it is given, with what to do.

`Arrays` is to arrays what `tracked.Tracked` is to modules and optimizers: both give a `State` and take one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hpresil.base.errors import ConfigError, Refused
from hpresil.snapshot.admission import check_tensor
from hpresil.snapshot.memory import is_plain
from hpresil.snapshot.state import Entry, State
from hpresil.snapshot.values import decode, encode

SECTION = "parameters"
_VALUES: dict[str, object] = {"extra": {}, "optimizers": {}, "objects": {}, "layout": {}, "arrays": True}


def is_array(thing: object) -> bool:
    """Whether ``thing`` is a tensor or shares its memory in one of the ways known here."""
    if isinstance(thing, torch.Tensor):
        return True
    if any(
        hasattr(thing, name) for name in ("__dlpack__", "__cuda_array_interface__", "__array_interface__")
    ):
        return True
    try:
        memoryview(thing).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def as_tensor(name: str, array: Any) -> torch.Tensor:
    """Return a tensor over the memory of ``array``.

    Raises:
        ConfigError: It is read-only, of a dtype that torch does not have, or shares no memory.
    """
    if isinstance(array, torch.Tensor):
        tensor = array.detach()
    elif hasattr(array, "__cuda_array_interface__"):
        tensor = _tried(name, array, lambda: torch.as_tensor(array, device="cuda"))
        if tensor.data_ptr() != array.__cuda_array_interface__["data"][0]:
            raise ConfigError(f"array {name} could not be taken without a copy; give a contiguous CUDA array")
    elif isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        tensor = _of_buffer(name, array)
    else:
        tensor = _tried(name, array, lambda: torch.utils.dlpack.from_dlpack(array))
    check_tensor(tensor, f"array {name}")
    if any(stride == 0 < size - 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        raise ConfigError(f"array {name} repeats elements (a broadcast view); give a copy of it")
    return tensor


def _of_buffer(name: str, array: Any) -> torch.Tensor:
    seen = np.asarray(array if isinstance(array, np.ndarray) else memoryview(array))
    if not seen.flags.writeable:
        raise ConfigError(
            f"array {name} is read-only, so it could not be restored; give a writable one (bytes → "
            f"bytearray, "
            "numpy: array.copy())"
        )
    if any(stride < 0 for stride in seen.strides):
        raise ConfigError(f"array {name} has negative strides; give array.copy()")
    return _tried(name, array, lambda: torch.from_numpy(seen))


def _tried(name: str, array: Any, make: Any) -> torch.Tensor:
    try:
        made = make()
    except (TypeError, ValueError, RuntimeError, BufferError, AssertionError) as error:
        kind = getattr(array, "dtype", type(array).__qualname__)
        raise ConfigError(
            f"array {name} ({kind}) cannot be seen as a torch tensor ({error}); give a view of the same "
            f"memory with a "
            "dtype that torch has, for instance array.view('u1'), of native byte order"
        ) from error
    assert isinstance(made, torch.Tensor)
    return made


class Arrays:
    """Arrays by name, whose contents must survive.

    Args:
        arrays: They stay the caller's; the same memory is read and written later.

    Raises:
        ConfigError: One of them cannot be captured and restored exactly; the message names it.
    """

    def __init__(self, arrays: Mapping[str, object]) -> None:
        self._tensors = {name: as_tensor(name, array) for name, array in arrays.items()}

    def capture(self) -> State:
        """Return the state as it is now, referring to the arrays: valid until they change."""
        entries = [Entry(name, SECTION, tensor) for name, tensor in self._tensors.items()]
        return State(entries, encode(_VALUES, "arrays", _no_tensor))

    def prepare(self, state: State) -> ArrayTargets:
        """Compare ``state`` with what is here and return where its tensors go.

        Raises:
            Refused: It does not fit; nothing was changed.
        """
        if decode(state.values, lambda ref: ref) != _VALUES:
            raise Refused("the state to restore is not one of arrays; restore it into what it was taken from")
        there = {entry.name: entry for entry in state.tensors}
        if missing := sorted(there.keys() ^ self._tensors.keys()):
            where = "only in the state to restore" if missing[0] in there else "only here"
            raise Refused(f"array {missing[0]} is {where}; give the same arrays as before")
        for name, tensor in self._tensors.items():
            here = Entry(name, SECTION, tensor).describe()
            if here != there[name].describe():
                raise Refused(f"array {name} is {here} here but {there[name].describe()} in the state")
        return ArrayTargets([self._tensors[entry.name] for entry in state.tensors])


class ArrayTargets:
    """Where the tensors of a state go, in its order."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors

    def targets(self, section: str) -> list[tuple[int, torch.Tensor]]:
        """Return (index into the state's tensors, tensor to fill) for one section."""
        return list(enumerate(self._tensors)) if section == SECTION else []

    def count_change(self) -> None:
        """Raise the version counters of what will be filled; NumPy and CuPy have none."""
        filled = [tensor for tensor in self._tensors if not tensor.is_inference()]
        torch.autograd.graph.increment_version(filled)

    def finish(self) -> None:
        """Wait until copies to devices are complete."""
        for tensor in self._tensors:
            if not is_plain(tensor) and tensor.is_cuda:
                torch.cuda.synchronize(tensor.device)


def _no_tensor(tensor: torch.Tensor, path: str) -> int:
    raise AssertionError(f"{path}: there are no tensors among these values")
