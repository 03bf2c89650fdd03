"""Noticing that a forward pass changed state it must not change.

Every in-place operation of torch raises the version counter of the tensor it writes to. Between two
looks at the counters of parameters and optimizer state, a difference is a hidden change; buffers are
left out, they may change in forward. Writes through ``.data``, numpy or raw pointers do not count up
and are not noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from hpresil.snapshot.inventory import Inventory


class Watch:
    """Remembers the version counters of parameters and optimizer state."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._marked: dict[str, tuple[int, int]] = {}

    def mark(self) -> None:
        """Remember all counters as they are now."""
        self._marked = dict(self._counters())

    def changed(self) -> list[str]:
        """Return the names of what changed, appeared or vanished since `mark`, in tracked order."""
        now = dict(self._counters())
        changed = [name for name, counter in now.items() if self._marked.get(name) != counter]
        return changed + [name for name in self._marked if name not in now]

    def _counters(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for name, parameter in self._inventory.parameters:
            yield name, (parameter._version, parameter.data_ptr())
        for name in self._inventory.optimizers:
            for parameter_name, state in self._inventory.state_of(name):
                yield from _leaves(f"{name}.state.{parameter_name}", state)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    if isinstance(value, torch.Tensor):
        yield path, (value._version, value.data_ptr())
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
