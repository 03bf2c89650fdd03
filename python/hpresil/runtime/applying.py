"""The local part of a commit: norm, clipping, optimizers.

The gradient's norm comes with the reduction, summed in the canonical order. If user code changed the
gradient in between, it is computed again here with the same blocks, so that it is equal on every rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hpresil.base import failpoints, spans
from hpresil.base.errors import NonFiniteLoss, UsageError
from hpresil.comm.reduction import square_sum
from hpresil.runtime.streams import OUTSIDE, set_generators
from hpresil.runtime.trainer import Trainer


class Applier:
    """One call of ``step.apply``; ``place`` is the line in the script."""

    def __init__(self, trainer: Trainer, place: str) -> None:
        self._trainer, self._place = trainer, place
        self._gradients = trainer.gradients

    @torch.no_grad()
    def apply(
        self, optimizers: Sequence[torch.optim.Optimizer], *, max_norm: float | None, scaler: Any
    ) -> None:
        """Clip and step; see ``Step.apply``."""
        trainer, engine = self._trainer, self._trainer.engine
        self._check(optimizers, max_norm)
        norm = self._norm(scaler)
        if not trainer.rehearsing:
            if scaler is None and not math.isfinite(norm):
                raise NonFiniteLoss(
                    f"the gradient norm of step {engine.state.version} is {norm}, every loss is finite: "
                    "the step was not committed; look at the backward pass and the learning rate"
                )
            engine.stamp("waiting")
            with spans.span("wait"):
                engine.guard.begin_change(engine.config.collective_timeout_s)
            engine.stamp("applying")
        failpoints.hit("apply.begin", **trainer.where())
        set_generators(engine.config.seed, engine.state.version, OUTSIDE, "apply")
        if scaler is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        if max_norm is not None:
            self._clip(norm, max_norm)
        for optimizer in optimizers:
            _ = optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()

    def _check(self, optimizers: Sequence[torch.optim.Optimizer], max_norm: float | None) -> None:
        tracked = list(self._trainer.tracked.optimizers.values())
        if not optimizers:
            raise UsageError(
                f"{self._place}: step.apply() needs the optimizers to run: step.apply(optimizer)"
            )
        for optimizer in optimizers:
            if not any(optimizer is known for known in tracked):
                raise UsageError(
                    f"{self._place}: step.apply() got a {type(optimizer).__name__} that is not tracked: "
                    "pass it to run.track(...) before the loop, so that its state survives"
                )
        if len({id(optimizer) for optimizer in optimizers}) != len(optimizers):
            raise UsageError(f"{self._place}: step.apply() got the same optimizer twice")
        if max_norm is not None and not max_norm > 0:
            raise UsageError(f"{self._place}: max_norm is {max_norm}: give a positive length or None")

    def _norm(self, scaler: Any) -> float:
        outcome = self._trainer.complete_outcome()
        norm = math.inf if outcome is None else outcome.grad_norm
        if outcome is None or self._gradients.changed_by_user():
            flats = self._gradients.collect()
            norm = math.sqrt(square_sum(flats, self._gradients.layout.norm_blocks))
        if scaler is not None:
            norm /= scaler.get_scale()
        self._trainer.note_norm(norm)
        return norm

    def _clip(self, norm: float, max_norm: float) -> None:
        factor = max_norm / (norm + 1e-6)
        grads = [p.grad for _, p in self._trainer.tracked.parameters if p.grad is not None]
        if factor < 1.0 and grads:
            torch._foreach_mul_(grads, factor)
