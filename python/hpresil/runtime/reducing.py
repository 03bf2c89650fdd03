"""From finished slots to a voted gradient: one attempt of the group's reduction.

Order of an attempt: the step's numbers (weights, losses, flags) are summed first, because the
gradient is divided by the total weight while it is reduced; then the gradient; then the buffers that
slot 0 changed; then, once all of it is here, the vote. Whatever fails before the vote changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hpresil.base import failpoints, spans
from hpresil.base.errors import DeadlineExceeded, GenerationChanged, NonFiniteLoss, Retryable
from hpresil.comm import native_reduction, reduction
from hpresil.comm.group import Group
from hpresil.comm.small_messages import broadcast_bytes, vote
from hpresil.runtime import step_machine as sm
from hpresil.runtime.buffers import Buffers
from hpresil.runtime.engine import Engine
from hpresil.runtime.gradients import Gradients
from hpresil.runtime.statistics import SlotNumbers, StepNumbers, pack, unpack

REDUCTIONS = {"canonical": reduction.reduce, "native": native_reduction.reduce}
"""By the setting `reduction`."""


@dataclass(frozen=True)
class Outcome:
    """What a complete reduction gives each rank, the same everywhere."""

    generation: int
    world_size: int
    numbers: StepNumbers
    grad_norm: float
    buffers: torch.Tensor  # slot 0's changed buffers, as bytes


class Reducer:
    """Runs attempts for one worker; `outcome` is the last complete one."""

    def __init__(self, engine: Engine, gradients: Gradients, buffers: Buffers) -> None:
        self.engine, self.gradients, self.buffers = engine, gradients, buffers
        self.outcome: Outcome | None = None

    def attempt(self, generation: int, numbers: dict[int, SlotNumbers]) -> None:
        """Reduce and vote in ``generation``. Returns also when the group failed: ask the machine again.

        Raises:
            NonFiniteLoss: Some slot's loss is NaN or infinite; raised on every rank alike.
        """
        state = self.engine.state
        where = {"worker": self.engine.worker, "rank": state.rank, "step": state.version}
        self.engine.stamp("waiting")
        failpoints.hit("reduce.begin", **where)
        try:
            if state.decided != generation:
                raise GenerationChanged(f"generation {generation} was replaced by {state.installed}")
            with self.engine.groups.using(generation) as group:
                try:
                    with spans.span("reduce"):
                        self.outcome = self._exchange(group, state, numbers)
                except Retryable:
                    if group.left_behind:
                        self.gradients.retire_target()
                    raise
                failpoints.hit("reduce.exchanged", **where)
                with spans.span("vote"):
                    self._hold(generation)
                    vote(group)
            failpoints.hit("vote.counted", **where)
            self.engine.change(lambda s: sm.vote_counted(s, generation))
        except (Retryable, DeadlineExceeded) as error:
            self.engine.group_failed(generation, error)

    def _hold(self, generation: int) -> None:
        with self.engine.changed:
            held = sm.gradient_complete(self.engine.state, generation)
            if held is None:
                raise GenerationChanged(f"generation {generation} ended before its gradient was complete")
            self.engine.state = held

    def _exchange(self, group: Group, state: sm.StepState, numbers: dict[int, SlotNumbers]) -> Outcome:
        slots, layout = state.slots, self.gradients.layout
        carried = [list(c) for c in state.carried]
        mine = {slot: numbers[slot] for slot in carried[group.rank]}
        vector = pack(
            slots,
            mine,
            self.gradients.used,
            self.buffers.changed,
            drain=self.engine.drain,
            hand_over=self.engine.hand_over == group.generation,
        )
        read: list[StepNumbers] = []

        def total_weight(summed: torch.Tensor) -> float:
            read.append(unpack(summed, slots, len(layout.places), len(self.buffers.names)))
            return self._checked_weight(read[0], state.version)

        reduced = REDUCTIONS[self.engine.config.reduction](
            group,
            nodes=self.gradients.contribution(carried[group.rank]),
            out=self.gradients.target(),
            carried=carried,
            slots=slots,
            stats=vector,
            norm_blocks=layout.norm_blocks,
            scale_of=total_weight,
        )
        packed = self._broadcast(group, carried, read[0])
        return Outcome(group.generation, group.size, read[0], math.sqrt(reduced.square_sum), packed)

    def _checked_weight(self, numbers: StepNumbers, step: int) -> float:
        bad = numbers.first_bad_slot()
        if bad is not None:
            raise NonFiniteLoss(
                f"the loss of step {step}, slot {bad} is {numbers.losses[bad]}: the step was not committed. "
                "Look at that slot's data and at the learning rate; resume from the saved state"
            )
        total = numbers.total_weight
        if not (math.isfinite(total) and total > 0):
            raise NonFiniteLoss(
                f"the weights of step {step} add up to {total}: give step.backward(loss, weight=…) a "
                "positive finite weight for at least one microbatch"
            )
        return total

    def _broadcast(self, group: Group, carried: list[list[int]], numbers: StepNumbers) -> torch.Tensor:
        nbytes = self.buffers.broadcast_bytes(numbers.buffers_changed)
        if not nbytes:
            return torch.empty(0, dtype=torch.uint8)
        root = next(rank for rank, slots in enumerate(carried) if 0 in slots)
        if group.rank == root:
            packed = self.buffers.pack(numbers.buffers_changed)
        else:
            packed = torch.empty(nbytes, dtype=torch.uint8)
        if group.size > 1:
            broadcast_bytes(group, packed, root)
        return packed
