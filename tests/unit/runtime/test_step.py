"""What a step computes, seen through the API of a run with one worker."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from hpresil import JobStopped, Run

MakeRun = Callable[..., Run]


def train(run: Run, task, steps: int, **apply: object) -> list[float]:
    losses = []
    for step in run.steps(steps):
        with step:
            for batch in step.microbatches(task.data):
                step.backward(task.loss(batch))
            step.apply(task.optimizer, **apply)
        assert step.committed
        losses.append(step.loss)
    return losses


def test_the_gradient_is_the_mean_over_the_whole_batch(make_run: MakeRun, task) -> None:
    task.model.eval()  # no dropout: comparable with one pass over all samples
    run = make_run(slots=4, microbatches=2)
    run.track(model=task.model, optimizer=task.optimizer)
    seen = {}
    for step in run.steps(1):
        with step:
            for batch in step.microbatches(task.data):
                step.backward(task.loss(batch))
            seen = {name: p.grad.clone() for name, p in task.model.named_parameters()}
            norm = torch.cat([g.flatten() for g in seen.values()]).norm().item()
            assert step.grad_norm == pytest.approx(norm, rel=1e-6)
            before = [p.detach().clone() for p in task.model.parameters()]
            step.apply(task.optimizer)
    with torch.no_grad():
        for p, old in zip(task.model.parameters(), before, strict=True):
            p.copy_(old)
    everything = [task.data(0, slot, j) for slot in range(4) for j in range(2)]
    task.model.zero_grad()
    task.loss((torch.cat([x for x, _ in everything]), torch.cat([y for _, y in everything]))).backward()
    for name, p in task.model.named_parameters():
        torch.testing.assert_close(seen[name], p.grad)


def test_weights_are_summed_and_divided_out(make_run: MakeRun) -> None:
    scale = nn.Parameter(torch.ones(1))
    module = nn.ParameterList([scale])
    optimizer = torch.optim.SGD([scale], lr=1.0)
    run = make_run(slots=3)
    run.track(model=module, optimizer=optimizer)
    weights = [1.0, 2.0, 5.0]
    for step in run.steps(1):
        with step:
            for slot in step.microbatches(lambda step, slot, j: torch.tensor(slot)):
                step.backward((scale * float(slot + 1)).sum(), weight=weights[int(slot)])
            assert scale.grad is not None
            assert scale.grad.item() == (1 * 1 + 2 * 2 + 5 * 3) / 8
            step.apply(optimizer)
    assert step.loss == (1 * 1 + 2 * 2 + 5 * 3) / 8


def test_a_parameter_that_no_slot_used_has_no_gradient(make_run: MakeRun) -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    run = make_run(slots=2)
    run.track(model=model, optimizer=optimizer)
    before = model["idle"].weight.detach().clone()
    for step in run.steps(3):
        with step:
            for _ in step.microbatches(lambda step, slot, j: 0):
                step.backward(model["used"](torch.ones(1, 2)).sum())
            assert model["idle"].weight.grad is None
            step.apply(optimizer)
    assert torch.equal(model["idle"].weight, before), "weight decay must not touch what was not used"


def test_zero_grad_in_the_loop_loses_nothing(make_run: MakeRun, make_task) -> None:
    results = []
    for zero in (False, True):
        task = make_task()
        run = make_run(slots=2, microbatches=3)
        run.track(model=task.model, optimizer=task.optimizer)
        for step in run.steps(3):
            with step:
                for batch in step.microbatches(task.data):
                    if zero:
                        task.optimizer.zero_grad()
                    step.backward(task.loss(batch))
                step.apply(task.optimizer)
        results.append([p.detach().clone() for p in task.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_changing_the_gradient_changes_the_norm_and_the_step(make_run: MakeRun, task) -> None:
    run = make_run(slots=2)
    run.track(model=task.model, optimizer=task.optimizer)
    for step in run.steps(1):
        with step:
            for batch in step.microbatches(task.data):
                step.backward(task.loss(batch))
            before = step.grad_norm
            for p in task.model.parameters():
                p.grad.mul_(2)
            step.apply(task.optimizer)
            assert step.grad_norm == pytest.approx(2 * before)


def test_bf16_parameters_accumulate_in_fp32(make_run: MakeRun) -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    module = nn.ParameterList([weight])
    optimizer = torch.optim.SGD([weight], lr=1.0)
    run = make_run(slots=2, microbatches=256)
    run.track(model=module, optimizer=optimizer)
    for step in run.steps(1):
        with step:
            for _ in step.microbatches(lambda step, slot, j: 0):
                step.backward((weight * 1.0).sum())
            assert weight.grad is not None
            assert weight.grad.dtype == torch.bfloat16
            assert weight.grad.item() == 1.0, "a sum of 256 ones in bf16 would have stopped growing"
            step.apply(optimizer)


def test_buffers_start_each_slot_from_the_committed_version(make_run: MakeRun) -> None:
    norm = nn.BatchNorm1d(2, momentum=0.5)
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1)
    run = make_run(slots=2)
    run.track(model=norm, optimizer=optimizer, buffers={"*running_mean": "mean"})
    batches = [torch.tensor([[0.0, 0.0], [2.0, 4.0]]), torch.tensor([[10.0, 0.0], [12.0, 0.0]])]
    for step in run.steps(1):
        with step:
            for x in step.microbatches(lambda step, slot, j: batches[slot]):
                step.backward(norm(x).sum())
            step.apply(optimizer)
    assert norm.running_mean.tolist() == [(0.5 * 1 + 0.5 * 11) / 2, (0.5 * 2 + 0.0) / 2], (
        "mean over the slots"
    )
    assert norm.num_batches_tracked.item() == 1, "slot 0's value"
    variance = batches[0].var(0)
    torch.testing.assert_close(norm.running_var, 0.5 + 0.5 * variance)


def test_random_numbers_depend_on_step_and_slot_only(make_run: MakeRun, task) -> None:
    draws = []
    run = make_run(slots=3, seed=7)
    run.track(model=task.model, optimizer=task.optimizer)
    for step in run.steps(2):
        with step:
            for batch in step.microbatches(task.data):
                draws.append((torch.rand(1).item(), random.random(), float(np.random.rand())))
                step.backward(task.loss(batch))
            step.apply(task.optimizer)
    assert len(set(draws)) == 6


def test_an_exception_is_retried_once_with_the_same_bits(make_run: MakeRun, make_task) -> None:
    results = []
    for fails_at in (None, (1, 1)):
        task, failed = make_task(), []
        run = make_run(slots=3)
        run.track(model=task.model, optimizer=task.optimizer)
        committed = 0
        for step in run.steps(3):
            with step:
                for index, batch in enumerate(step.microbatches(task.data)):
                    if (step.index, index) == fails_at and not failed:
                        failed.append(True)
                        raise ValueError("once")
                    step.backward(task.loss(batch))
                step.apply(task.optimizer, max_norm=0.1)
            committed += step.committed
        assert committed == 3
        assert bool(failed) == (fails_at is not None)
        results.append([p.detach().clone() for p in task.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_second_exception_at_the_same_slot_is_the_users(make_run: MakeRun, task) -> None:
    run = make_run(slots=2)
    run.track(model=task.model, optimizer=task.optimizer)
    attempts = 0
    with pytest.raises(ZeroDivisionError):
        for step in run.steps(3):
            with step:
                for _ in step.microbatches(task.data):
                    attempts += 1
                    1 / 0  # noqa: B018
    assert attempts == 2


def test_an_exception_before_apply_is_retried_with_the_same_gradient(make_run: MakeRun, make_task) -> None:
    results = []
    for fails in (False, True):
        task, failed = make_task(), []
        run = make_run(slots=2)
        run.track(model=task.model, optimizer=task.optimizer)
        for step in run.steps(3):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                if fails and step.index == 1 and not failed:
                    failed.append(True)
                    raise ValueError("between the loop and apply")
                step.apply(task.optimizer, max_norm=0.1)
        assert bool(failed) == fails
        results.append([p.detach().clone() for p in task.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_exception_after_the_commit_stops_a_lone_worker(make_run: MakeRun, task) -> None:
    run = make_run(slots=2)
    run.track(model=task.model, optimizer=task.optimizer)
    with pytest.raises(JobStopped) as stopped:
        for step in run.steps(3):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch))
                step.apply(task.optimizer)
                raise ValueError("in the tail")
    assert isinstance(stopped.value.__cause__, ValueError)


def test_several_optimizers_step_together(make_run: MakeRun, task) -> None:
    first = torch.optim.SGD(task.model[0].parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.AdamW(task.model[3].parameters(), lr=0.1)
    run = make_run(slots=2)
    run.track(model=task.model, first=first, second=second)
    before = [p.detach().clone() for p in task.model.parameters()]
    for step in run.steps(1):
        with step:
            for batch in step.microbatches(task.data):
                step.backward(task.loss(batch))
            step.apply(first, second)
    assert not any(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))


def test_a_scaler_unscales_loss_norm_and_gradient(make_run: MakeRun, make_task) -> None:
    results = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        task = make_task()
        run = make_run(slots=2)
        extra = {} if scaler is None else {"scaler": scaler}
        run.track(model=task.model, optimizer=task.optimizer, **extra)
        for step in run.steps(2):
            with step:
                for batch in step.microbatches(task.data):
                    step.backward(task.loss(batch), scaler=scaler)
                step.apply(task.optimizer, max_norm=0.05, scaler=scaler)
            results.append((step.loss, step.grad_norm))
        results.append([p.detach().clone() for p in task.model.parameters()])
    assert results[0] == results[3]
    assert results[1] == results[4]
    assert all(torch.equal(a, b) for a, b in zip(results[2], results[5], strict=True))
