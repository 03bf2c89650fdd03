"""Module buffers that change in forward: BatchNorm's running statistics and the like.

Every slot starts from the buffers of version v, so a slot's result does not depend on which slots
ran before it on the same rank. What a committed step leaves behind is decided by pattern:

* ``slot0`` (default): the values after slot 0, as DDP keeps rank 0's,
* ``mean``: the mean of the slots' values, summed in the canonical tree,
* ``sum``: version v plus the sum of the slots' changes.

The live buffers belong to user code while a slot runs; ``committed`` holds version v, which is what
snapshots and newcomers get.

Thread rule: the training thread, except that `committed` may be read by another while no block ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch

from hpresil.base.errors import ConfigError

POLICIES = ("slot0", "mean", "sum")


class Buffers:
    """The buffers of all tracked modules, by name, with their policies."""

    def __init__(
        self, named: list[tuple[str, torch.Tensor]], patterns: Mapping[str, str], slots: int
    ) -> None:
        self.slots = slots
        self.names = [name for name, _ in named]
        self.live = [tensor for _, tensor in named]
        self.policies = [_policy(name, patterns) for name in self.names]
        _check(patterns, self.names, self.policies, self.live)
        self.committed = [t.detach().clone() for t in self.live]
        self.changed = [False] * len(self.live)  # by any slot this rank ran in this step
        self._slot0: dict[int, torch.Tensor] = {}

    def tail(self) -> dict[torch.dtype, int]:
        """Return how many elements the canonical sum of buffers needs, by dtype."""
        need: dict[torch.dtype, int] = {}
        for index in self._summed():
            dtype = self._sum_dtype(index)
            need[dtype] = need.get(dtype, 0) + self.live[index].numel()
        return need

    @torch.no_grad()
    def begin_slot(self) -> None:
        """Put version v back where an earlier slot or the user changed it."""
        for tensor, committed in zip(self.live, self.committed, strict=True):
            if not same(tensor, committed):
                tensor.copy_(committed)

    @torch.no_grad()
    def end_slot(self, slot: int, flats: list[torch.Tensor], starts: list[int]) -> None:
        """Note what the slot changed: slot 0's values, and the regions that are summed."""
        moved = [not same(t, c) for t, c in zip(self.live, self.committed, strict=True)]
        self.changed = [a or b for a, b in zip(self.changed, moved, strict=True)]
        if slot == 0:
            self._slot0 = {i: self.live[i].detach().clone() for i, m in enumerate(moved) if m}
        for index, part in self._parts(flats, starts):
            value = self.live[index]
            if self.policies[index] == "sum":
                value = value - self.committed[index]
            part.copy_(value.reshape(-1))

    def broadcast_bytes(self, changed: list[bool]) -> int:
        """Return the size of what the carrier of slot 0 sends: the changed buffers kept from slot 0."""
        return sum(self.live[i].numel() * self.live[i].element_size() for i in self._kept(changed))

    def pack(self, changed: list[bool]) -> torch.Tensor:
        """Return slot 0's changed buffers as bytes (uint8, host memory)."""
        kept = [self._slot0.get(i, self.committed[i]) for i in self._kept(changed)]
        parts = [t.contiguous().view(-1).view(torch.uint8).cpu() for t in kept]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)

    @torch.no_grad()
    def install(
        self, changed: list[bool], packed: torch.Tensor, flats: list[torch.Tensor], starts: list[int]
    ) -> None:
        """Make the live buffers what the step commits. `committed` follows at the end of the block."""
        self.begin_slot()
        offset = 0
        for index in self._kept(changed):
            tensor = self.live[index]
            nbytes = tensor.numel() * tensor.element_size()
            # A clone starts at an aligned address, which a view as another dtype needs.
            part = packed[offset : offset + nbytes].clone()
            tensor.copy_(part.view(tensor.dtype).view(tensor.shape))
            offset += nbytes
        for index, part in self._parts(flats, starts):
            if changed[index]:
                tensor = self.live[index]
                summed = part.view(tensor.shape)
                is_sum = self.policies[index] == "sum"
                tensor.copy_(self.committed[index] + summed if is_sum else summed / self.slots)

    @torch.no_grad()
    def commit(self) -> None:
        """Take the live buffers for the new version: a step ended, or a state was installed."""
        for tensor, committed in zip(self.live, self.committed, strict=True):
            if not same(tensor, committed):
                committed.copy_(tensor)
        self.changed = [False] * len(self.live)
        self._slot0 = {}

    def _summed(self) -> list[int]:
        return [i for i, policy in enumerate(self.policies) if policy != "slot0"]

    def _kept(self, changed: list[bool]) -> list[int]:
        return [i for i, policy in enumerate(self.policies) if policy == "slot0" and changed[i]]

    def _sum_dtype(self, index: int) -> torch.dtype:
        return torch.float64 if self.live[index].dtype == torch.float64 else torch.float32

    def _parts(self, flats: list[torch.Tensor], starts: list[int]) -> list[tuple[int, torch.Tensor]]:
        cursor = {flat.dtype: start for flat, start in zip(flats, starts, strict=True)}
        by_dtype = {flat.dtype: flat for flat in flats}
        parts = []
        for index in self._summed():
            dtype, count = self._sum_dtype(index), self.live[index].numel()
            parts.append((index, by_dtype[dtype][cursor[dtype] : cursor[dtype] + count]))
            cursor[dtype] += count
        return parts


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have equal bits. Version counters do not tell: batch norm bypasses them."""
    if a.dtype.is_floating_point:
        integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        return torch.equal(a.contiguous().view(-1).view(integer), b.contiguous().view(-1).view(integer))
    return torch.equal(a, b)


def _policy(name: str, patterns: Mapping[str, str]) -> str:
    matches = [policy for pattern, policy in patterns.items() if fnmatchcase(name, pattern)]
    return matches[-1] if matches else "slot0"


def _check(
    patterns: Mapping[str, str], names: list[str], policies: list[str], live: list[torch.Tensor]
) -> None:
    for pattern, policy in patterns.items():
        if policy not in POLICIES:
            raise ConfigError(f"buffers[{pattern!r}] is {policy!r}: choose one of {', '.join(POLICIES)}")
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"buffers[{pattern!r}] matches no buffer; there are: {', '.join(names) or 'none'}"
            )
    for name, policy, tensor in zip(names, policies, live, strict=True):
        if policy != "slot0" and not tensor.dtype.is_floating_point:
            raise ConfigError(
                f"buffer {name} is {tensor.dtype}: only floating-point buffers can be a {policy}"
            )
