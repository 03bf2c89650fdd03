"""One training step, as the user's script sees it.

``with step`` brackets the step; `Step.microbatches` hands out the batches of the slots this rank
carries and ends when the whole group's gradient is complete and voted. If a peer is lost meanwhile it
simply yields the lost slots' batches too: control never jumps backwards on a survivor, and no exception
passes through user code. A step block that user code leaves with an exception is bounded by
`hpresil.runtime.failure`.

Thread rule: everything here belongs to the training thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch

from hpresil.base import failpoints, spans
from hpresil.base.errors import Interrupted, UsageError
from hpresil.runtime import step_machine as sm
from hpresil.runtime.applying import Applier
from hpresil.runtime.failure import Failures
from hpresil.runtime.place import caller
from hpresil.runtime.reducing import Outcome
from hpresil.runtime.trainer import Trainer


class Step:
    """Step ``index`` of the job. Made by ``run.steps()``; use it in a ``with`` statement, once."""

    def __init__(self, trainer: Trainer, failures: Failures, index: int) -> None:
        self._trainer, self._failures = trainer, failures
        self._index = index
        self._entered = False
        self._looped = False
        self._backwards: int | None = None  # calls since the last batch was handed out
        self._applied_at: str | None = None
        self._committed = False
        self._outcome: Outcome | None = None

    @property
    def index(self) -> int:
        """The number of this step, from 0."""
        return self._index

    @property
    def committed(self) -> bool:
        """Whether the step counts: false for a spare's dry step and for a step that was left early."""
        return self._committed

    @property
    def loss(self) -> float:
        """The batch's weighted mean loss, equal on every rank; NaN before the gradient is complete."""
        outcome = self._result()
        return math.nan if outcome is None else outcome.numbers.loss

    @property
    def grad_norm(self) -> float:
        """The 2-norm of the canonical gradient before clipping; NaN before it is complete."""
        outcome = self._result()
        return math.nan if outcome is None else outcome.grad_norm

    def _result(self) -> Outcome | None:
        return self._trainer.complete_outcome() if self._trainer.current is self else self._outcome

    # ------------------------------------------------------------------ the block

    def __enter__(self) -> Step:
        if self._entered:
            raise UsageError(
                f"{caller()}: this step block was entered before; take one step from run.steps() a time"
            )
        self._entered = True
        self._trainer.begin_step(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._trainer.leave_step()
        if isinstance(error, Interrupted):
            return True
        if error is None:
            try:
                self._check_complete()
            except UsageError as misuse:
                self._failures.misused(misuse, self._index)
                raise
            with spans.span("commit"):
                self._outcome = self._trainer.end_step(self._index)
            self._committed = True
            return False
        return self._failures.absorb(error, trace, self._index)

    def _check_complete(self) -> None:
        if self._applied_at is None:
            raise UsageError(
                f"{caller(3)}: the block of step {self._index} ended without step.apply(optimizer): call it "
                "once, after the loop over step.microbatches(...)"
            )

    # ------------------------------------------------------------------ the loop over microbatches

    def microbatches(self, data: Any) -> Iterator[Any]:
        """Yield the batches this rank has to run; ends when the group's gradient is complete and voted.

        Call `backward` exactly once for each. After the loop ``p.grad`` holds the canonical gradient of
        the whole batch, in the parameter's dtype, divided by the total weight; it may be read, logged
        or changed as long as every rank changes it alike.

        Args:
            data: A `TokenDataset`, any map-style torch dataset, or a function ``(step, slot, j) -> batch``.

        Raises:
            UsageError: The loop is used in another way than a plain ``for`` loop.
            NonFiniteLoss: The loss of some slot is NaN or infinite.
        """
        place = caller()
        if not self._entered or self._trainer.current is not self:
            raise UsageError(f"{place}: step.microbatches() is only valid inside of its `with step` block")
        if self._looped:
            raise UsageError(
                f"{place}: step.microbatches() was called twice in step {self._index}: loop over it once"
            )
        self._looped = True
        return self._batches(data, place)

    def _batches(self, data: Any, place: str) -> Iterator[Any]:
        trainer = self._trainer
        while True:
            action = trainer.engine.next_action()
            if isinstance(action, sm.RunSlot):
                with spans.span("slot", slot=action.slot):
                    for batch in trainer.slot_batches(data, self._index, action.slot):
                        yield from self._hand_out(batch, place)
                    trainer.finish_slot(action.slot)
            elif isinstance(action, sm.ReduceGradient):
                trainer.reducer.attempt(action.generation, trainer.numbers)
            elif isinstance(action, sm.Commit):
                trainer.show_gradient()
                return
            else:
                raise Interrupted(f"the state of worker {trainer.engine.worker} is being replaced")

    def _hand_out(self, batch: Any, place: str) -> Iterator[Any]:
        self._backwards = 0
        yield batch
        if self._backwards != 1:
            raise UsageError(
                f"{place}: {self._backwards} calls of step.backward() for a batch of step {self._index}, "
                "expected 1: call step.backward(loss) once in the loop's body, and do not collect the "
                "batches in a list"
            )
        self._backwards = None

    def backward(self, loss: torch.Tensor, weight: float = 1, scaler: Any = None) -> None:
        """Run backward for the batch that was handed out last.

        Args:
            loss: Scalar tensor, the *mean* loss of this batch.
            weight: How much the batch counts, say its number of unpadded tokens. The gradient of the step
                is the sum of weight times gradient, divided by the sum of the weights.
            scaler: A ``torch.amp.GradScaler``; the same one goes to `apply`.

        Raises:
            UsageError: Not in the loop, called twice for a batch, or ``loss`` is no scalar with a gradient.
        """
        if self._backwards is None or self._trainer.current is not self:
            raise UsageError(
                f"{caller()}: step.backward() belongs into the loop over step.microbatches(...), once a batch"
            )
        self._backwards += 1
        if self._backwards > 1:
            raise UsageError(
                f"{caller()}: step.backward() was called twice for one batch: add the losses up first"
            )
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise UsageError(
                f"{caller()}: step.backward() needs a tensor of one element that has a gradient, got "
                f"{describe(loss)}"
            )
        self._trainer.backward(loss, float(weight), scaler)

    # ------------------------------------------------------------------ the commit

    def apply(
        self, *optimizers: torch.optim.Optimizer, max_norm: float | None = None, scaler: Any = None
    ) -> None:
        """Clip the gradient, run the optimizers, and commit the step at the end of the block.

        Local: it waits for nobody but copies of this worker's own state that are being read.

        Args:
            optimizers: The tracked optimizers to step, in this order.
            max_norm: Scale the gradient down to this 2-norm if it is longer; None: leave it.
            scaler: The ``torch.amp.GradScaler`` that scaled the loss.

        Raises:
            UsageError: Called twice, before the loop's end, or with an optimizer that is not tracked.
            NonFiniteLoss: The gradient's norm is NaN or infinite and there is no scaler to skip the step.
        """
        place = caller()
        if self._trainer.current is not self:
            raise UsageError(f"{place}: step.apply() is only valid inside of its `with step` block")
        if self._applied_at is not None:
            raise UsageError(
                f"{place}: step.apply() was already called at {self._applied_at}: give it all optimizers"
            )
        if not self._trainer.may_apply():
            raise UsageError(
                f"{place}: step.apply() was called before the loop over step.microbatches(...) had ended: "
                "run the loop to its end on every rank, without break"
            )
        with spans.span("apply"):
            Applier(self._trainer, place).apply(optimizers, max_norm=max_norm, scaler=scaler)
        self._applied_at = place
        failpoints.hit("apply.end", **self._trainer.where())
        self._trainer.after_apply()


class DryStep(Step):
    """A spare's rehearsal: one slot is run and applied to state that is replaced afterwards.

    It pays for what happens at first use (allocations, kernel selection, optimizer state), so that
    taking over a rank costs only the copy of the state.
    """

    def _batches(self, data: Any, place: str) -> Iterator[Any]:
        trainer = self._trainer
        with spans.span("slot", slot=0):
            for batch in trainer.slot_batches(data, self._index, 0):
                yield from self._hand_out(batch, place)
        trainer.rehearse_gradient()

    def _check_complete(self) -> None:
        raise UsageError(f"{caller(3)}: the step block ended without step.apply(optimizer): call it once")


def describe(value: object) -> str:
    """Return ``value`` in the words of an error message."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}, requires_grad={value.requires_grad}"
    return f"{type(value).__name__}"
