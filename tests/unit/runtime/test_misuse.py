"""Misuse of the API ends in one clear error that names the line, never in wrong bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from hpresil import ConfigError, NonFiniteLoss, Run, UsageError

MakeRun = Callable[..., Run]
HERE = "test_misuse.py"


@pytest.fixture
def run(make_run: MakeRun, task) -> Run:
    run = make_run(slots=2)
    run.track(model=task.model, optimizer=task.optimizer)
    return run


def test_a_block_without_apply_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=rf"{HERE}:\d+: the block of step 0 ended without step.apply"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))


def test_two_applies_are_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=rf"{HERE}:\d+: step.apply\(\) was already called at .*{HERE}:\d+"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                step.apply(task.optimizer)
                step.apply(task.optimizer)


def test_loss_backward_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=r"call step.backward\(loss\) instead of loss.backward\(\)"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    task.loss(batch).backward()


def test_a_batch_without_backward_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=rf"{HERE}:\d+: 0 calls of step.backward"):
        for step in run.steps(2):
            with step:
                for _ in step.microbatches(task.data):
                    pass


def test_two_backwards_for_a_batch_are_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match="called twice for one batch"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                    step.backward(task.loss(batch))


def test_collecting_the_batches_in_a_list_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match="do not collect the batches in a list"):
        for step in run.steps(2):
            with step:
                list(step.microbatches(task.data))


def test_leaving_the_loop_early_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match="without break"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                    break
                step.apply(task.optimizer)


def test_an_untracked_optimizer_is_refused(run: Run, task) -> None:
    other = torch.optim.SGD(task.model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="got a SGD that is not tracked"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                step.apply(other)


def test_a_parameter_changed_in_forward_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=r"model\.0\.bias was changed in place while slot 0"):
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                    with torch.no_grad():
                        task.model[0].bias.add_(1)


def test_steps_before_track_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match=r"call run.track"):
        make_run(slots=2).steps(3)


def test_a_second_loop_is_refused(run: Run) -> None:
    run.steps(0)
    with pytest.raises(UsageError, match="a job has one loop"):
        run.steps(0)


def test_a_nan_loss_stops_with_step_and_slot(run: Run, task) -> None:
    with pytest.raises(NonFiniteLoss, match="loss of step 1, slot 1 is nan"):
        for step in run.steps(3):
            with step:
                for index, batch in enumerate(step.microbatches(task.data)):
                    poison = math.nan if (step.index, index) == (1, 1) else 1.0
                    step.backward(task.loss(batch) * poison)
                step.apply(task.optimizer)
    assert all(p.isfinite().all() for p in task.model.parameters())


class Overflowing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def test_a_gradient_that_overflows_is_not_applied(run: Run, task) -> None:
    with pytest.raises(NonFiniteLoss, match="the gradient norm of step 0 is"):
        for step in run.steps(1):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(Overflowing.apply(task.loss(batch)))
                step.apply(task.optimizer)
    assert all(p.isfinite().all() for p in task.model.parameters())


def test_a_model_without_trained_parameters_is_refused(make_run: MakeRun, task) -> None:
    run = make_run(slots=2)
    task.model.requires_grad_(False)
    run.track(model=task.model)
    with pytest.raises(ConfigError, match="nothing to train"):
        next(iter(run.steps(1)))


def test_logging_something_else_than_a_number_is_refused(run: Run, task) -> None:
    with pytest.raises(UsageError, match=r"run.log\(curve=…\) got a list"):
        for step in run.steps(1):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                step.apply(task.optimizer)
            run.log(curve=[1, 2])
