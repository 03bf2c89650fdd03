"""The parts of a step, in the order in which `Step` calls them.

Holds what lives as long as the job does: gradients, buffers, the numbers of the slots that are done.
They are kept when a step is tried again after a user exception, and dropped at its commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from hpresil.base import failpoints, spans
from hpresil.base.errors import Interrupted, UsageError
from hpresil.data.source import microbatch, slot_hash
from hpresil.membership.messages import Committed, HandedOver
from hpresil.runtime import step_machine as sm
from hpresil.runtime.buffers import Buffers
from hpresil.runtime.engine import Engine
from hpresil.runtime.gradients import Gradients
from hpresil.runtime.reducing import Outcome, Reducer
from hpresil.runtime.statistics import SlotNumbers
from hpresil.runtime.streams import OUTSIDE, set_generators
from hpresil.snapshot.tracked import Tracked

if TYPE_CHECKING:
    from hpresil.runtime.step import Step


class Trainer:
    """What one worker needs to run steps. Training thread only."""

    def __init__(
        self,
        *,
        engine: Engine,
        tracked: Tracked,
        gradients: Gradients,
        buffers: Buffers,
        device: torch.device,
    ) -> None:
        self.engine, self.tracked, self.gradients, self.buffers = engine, tracked, gradients, buffers
        self.device = device
        self.reducer = Reducer(engine, gradients, buffers)
        self.numbers: dict[int, SlotNumbers] = {}
        self.current: Step | None = None
        self.open_slot = OUTSIDE
        self.rehearsing = False
        self.drained = False

    def where(self) -> dict[str, int | None]:
        """Return the place for failpoints."""
        state = self.engine.state
        return {"worker": self.engine.worker, "rank": state.rank, "step": state.version}

    # ------------------------------------------------------------------ compute

    def begin_step(self, step: Step) -> None:
        """The block was entered."""
        if self.current is not None:
            raise UsageError("a `with step` block is nested in another one: end the first before the next")
        self.current = step
        self.engine.stamp("standby" if self.rehearsing else "computing")
        spans.begin("step")
        failpoints.hit("step.begin", **self.where())
        set_generators(self.engine.config.seed, step.index, OUTSIDE, "begin")

    def leave_step(self) -> None:
        """The block was left, however."""
        self.current = None
        spans.end("step")

    def slot_batches(self, data: Any, step: int, slot: int) -> Iterator[Any]:
        """Prepare ``slot`` and yield its batches."""
        config = self.engine.config
        self.open_slot = slot
        self._stamp(slot)
        self.buffers.begin_slot()
        self.gradients.open_slot(slot)
        self.tracked.mark()
        self.numbers[slot] = SlotNumbers()
        failpoints.hit("slot.begin", **self.where(), slot=slot)
        set_generators(config.seed, step, slot, "slot")
        for j in range(config.microbatches):
            with spans.span("data", slot=slot):
                ids, batch = microbatch(
                    data,
                    step=step,
                    slot=slot,
                    j=j,
                    slots=config.slots,
                    microbatches=config.microbatches,
                    microbatch_size=config.microbatch_size,
                    seed=config.seed,
                    device=self.device,
                )
            self.numbers[slot].ids.extend(ids)
            self.numbers[slot].tokens += _tokens(batch)
            yield batch
            self._stamp(slot)

    def backward(self, loss: torch.Tensor, weight: float, scaler: Any) -> None:
        """Run backward for one batch of the open slot."""
        weighted = loss if weight == 1 else loss * weight
        self.gradients.backward(weighted if scaler is None else scaler.scale(weighted))
        self.numbers[self.open_slot].add(loss, weight)

    def finish_slot(self, slot: int) -> None:
        """The slot's last backward is done: fold its gradient, keep its numbers."""
        changed = self.tracked.changed_in_forward()
        if changed:
            raise UsageError(
                f"{changed[0]} was changed in place while slot {slot} was computed: tracked state may change "
                "only after step.apply (buffers of modules excepted); move the change behind it"
            )
        layout = self.gradients.layout
        self.buffers.end_slot(slot, self.gradients.open_flats(), layout.tail_start)
        self.gradients.close_slot()
        numbers = self.numbers[slot]
        numbers.sample_hash = slot_hash(numbers.ids)
        self.open_slot = OUTSIDE
        self.engine.change(lambda s: sm.finish_slot(s, slot))
        failpoints.hit("slot.end", **self.where(), slot=slot)

    def drop_open_slot(self) -> int:
        """User code failed: forget the open slot and return it, or -1."""
        slot, self.open_slot = self.open_slot, OUTSIDE
        if slot != OUTSIDE:
            self.gradients.drop_slot()
            self.engine.change(lambda s: sm.drop_slot(s, slot))
        return slot

    # ------------------------------------------------------------------ gradient and commit

    def complete_outcome(self) -> Outcome | None:
        """Return the result of the step in progress once its gradient is complete and voted."""
        return self.reducer.outcome if self.engine.state.phase == "committing" else None

    def show_gradient(self) -> None:
        """The commit is allowed: show the canonical gradient and the buffers of the step."""
        outcome = self.reducer.outcome
        assert outcome is not None
        layout = self.gradients.layout
        self.gradients.show_reduced(outcome.numbers.used)
        self.buffers.install(
            outcome.numbers.buffers_changed, outcome.buffers, self.gradients.target(), layout.tail_start
        )
        self._generators_after_loop()
        self._stamp(OUTSIDE)

    def rehearse_gradient(self) -> None:
        """A dry step: the one slot's own gradient stands in for the reduced one."""
        self.gradients.fill_unused()
        for out, flat in zip(self.gradients.target(), self.gradients.open_flats(), strict=True):
            out.copy_(flat)
        self.gradients.drop_slot()
        self.gradients.show_reduced([True] * len(self.gradients.layout.places))
        self._generators_after_loop()

    def _generators_after_loop(self) -> None:
        # What is drawn from here on must not continue the stream of the slot this rank ran last.
        set_generators(self.engine.config.seed, self.engine.state.version, OUTSIDE, "reduced")

    def may_apply(self) -> bool:
        """Whether the gradient that `apply` needs is there."""
        return self.rehearsing or self.engine.state.phase == "committing"

    def after_apply(self) -> None:
        """The optimizers have run; a rehearsal ends here."""
        if self.rehearsing:
            raise Interrupted("the rehearsal of a spare is over")
        self.engine.stamp("tail")

    def state_may_be_torn(self) -> bool:
        """Whether running the rest of the block again could give other bits than running it once."""
        if self.engine.state.phase != "committing":
            return False
        return self.engine.guard.writing or self.gradients.changed_by_user()

    def note_norm(self, norm: float) -> None:
        """The user changed the gradient, or a scaler unscaled it: this is its norm."""
        if self.reducer.outcome is not None:
            self.reducer.outcome = replace(self.reducer.outcome, grad_norm=norm)

    def end_step(self, index: int) -> Outcome:
        """The block ended: version ``index + 1`` exists from here on."""
        engine, outcome = self.engine, self.reducer.outcome
        assert outcome is not None
        self.buffers.commit()
        self.gradients.reset()
        self.numbers.clear()
        every = engine.config.record_state_every
        digest = self.tracked.digest() if every and (index + 1) % every == 0 else ""
        if outcome.numbers.drain:
            self.drained = True
            engine.change(sm.loop_finished)
        # The report goes first: once the version exists, this worker may die and a copy of it live on.
        engine.send(
            Committed(
                generation=outcome.generation,
                step=index,
                loss=outcome.numbers.loss.hex(),
                grad_norm=outcome.grad_norm.hex(),
                samples=outcome.numbers.samples,
                state=digest,
                world_size=outcome.world_size,
                tokens=outcome.numbers.tokens,
                repeatable=engine.config.reduction == "canonical",
            )
        )
        if outcome.numbers.hand_over:
            engine.change(lambda s: sm.handed_over(s, outcome.generation))
            engine.send(HandedOver(generation=outcome.generation, version=index + 1))
        engine.change_and_report(sm.block_ended)
        engine.guard.end_change()
        engine.stamp("outside")
        failpoints.hit("block.end", **self.where())
        return outcome

    def discard(self) -> None:
        """This worker's state is worth nothing: forget the step and wait for a copy."""
        self.gradients.reset()
        self.numbers.clear()
        self.open_slot = OUTSIDE
        self.engine.change_and_report(sm.state_discarded)
        self.engine.guard.end_change()

    def state_replaced(self) -> None:
        """A copied state was installed."""
        self.gradients.reset()
        self.numbers.clear()
        self.buffers.commit()

    def _stamp(self, slot: int) -> None:
        self.engine.stamp("standby" if self.rehearsing else "computing", slot)


def _tokens(batch: Any) -> int:
    targets = getattr(batch, "targets", None)
    return targets.numel() if isinstance(targets, torch.Tensor) else 0
