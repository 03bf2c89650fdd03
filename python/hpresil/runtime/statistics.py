"""The small numbers of a step that travel with the vote, and how they are folded.

One float64 vector is summed over the group. Every per-slot entry is non-zero on the slot's carrier
only, so the sum is exact and each rank ends with each slot's own numbers; they are then folded in
the canonical tree locally. Flags are counts: a parameter is used if any rank used it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from hpresil.data.source import digest_hashes
from hpresil.elastic.slots import Node, merges, root

PER_SLOT = 4  # weight, weighted loss, hash of the sample ids, tokens


@dataclass
class SlotNumbers:
    """What one slot adds up to. ``loss`` stays on the device until the reduction."""

    weight: float = 0.0
    loss: torch.Tensor | None = None
    ids: list[int] = field(default_factory=list)
    sample_hash: int = 0
    tokens: int = 0

    def add(self, loss: torch.Tensor, weight: float) -> None:
        """Count one microbatch, left to right."""
        value = loss.detach().double() * weight
        self.loss = value if self.loss is None else self.loss + value
        self.weight += weight


@dataclass(frozen=True)
class StepNumbers:
    """The summed vector, taken apart; equal on every rank."""

    weights: list[float]
    losses: list[float]
    hashes: list[int]
    tokens: int
    used: list[bool]
    buffers_changed: list[bool]
    drain: bool
    hand_over: bool

    @property
    def total_weight(self) -> float:
        """The weight of the whole batch, folded in the canonical tree."""
        return fold(self.weights)

    @property
    def loss(self) -> float:
        """The weighted mean loss of the whole batch."""
        total = self.total_weight
        return fold(self.losses) / total if total else math.nan

    @property
    def samples(self) -> str:
        """Digest of the sample ids in slot order."""
        return digest_hashes(self.hashes)

    def first_bad_slot(self) -> int | None:
        """Return the first slot whose loss is NaN or infinite."""
        return next((s for s, loss in enumerate(self.losses) if not math.isfinite(loss)), None)


def fold(values: list[float]) -> float:
    """Sum one number a slot in the canonical tree."""
    slots = len(values)
    sums = {Node(0, s): value for s, value in enumerate(values)}
    for left, right, above in merges(slots, list(sums)):
        sums[above] = sums[left] + sums[right]
    return sums[root(slots)]


def pack(
    slots: int,
    numbers: dict[int, SlotNumbers],
    used: list[bool],
    buffers: list[bool],
    *,
    drain: bool,
    hand_over: bool,
) -> torch.Tensor:
    """Return this rank's vector: 1-D float64 on the host, the same length on every rank."""
    head = [float(flag) for flag in (drain, hand_over, *used, *buffers)]
    body = [0.0] * (PER_SLOT * slots)
    for slot, n in numbers.items():
        loss = 0.0 if n.loss is None else float(n.loss.item())
        body[PER_SLOT * slot : PER_SLOT * (slot + 1)] = [
            n.weight,
            loss,
            float(n.sample_hash),
            float(n.tokens),
        ]
    return torch.tensor(head + body, dtype=torch.float64)


def unpack(vector: torch.Tensor, slots: int, parameters: int, buffers: int) -> StepNumbers:
    """Take a summed vector apart."""
    drain, hand_over, *values = vector.tolist()
    body = values[parameters + buffers :]
    return StepNumbers(
        weights=body[0::PER_SLOT],
        losses=body[1::PER_SLOT],
        hashes=[int(h) for h in body[2::PER_SLOT]],
        tokens=int(sum(body[3::PER_SLOT])),
        used=[v > 0 for v in values[:parameters]],
        buffers_changed=[v > 0 for v in values[parameters : parameters + buffers]],
        drain=drain > 0,
        hand_over=hand_over > 0,
    )
