"""The gate over tensors in host memory: torch's fused AdamW does nothing until every rank has voted."""

import pytest
import torch

from hpresil.base.errors import NativeError, UsageError
from hpresil.comm.commit_gate import CommitGate


def training(fused=True):
    torch.manual_seed(3)
    model = torch.nn.Linear(7, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model, optimizer


def bits(model, optimizer):
    tensors = [*model.parameters()]
    for state in optimizer.state.values():
        tensors += [state[name] for name in sorted(state)]
    return [tensor.detach().clone() for tensor in tensors]


def equal(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def gate():
    return CommitGate(3, torch.device("cpu"))


def test_with_no_neither_parameters_nor_moments_nor_the_step_count_change() -> None:
    model, optimizer = training()
    optimizer.step()  # so that there are moments, and a step count
    closed = gate()
    before = bits(model, optimizer)
    for ballots in (0, 2):
        ballot = closed.close(4, 7)
        closed.ballots[:ballots] = ballot
        closed.open()
        assert not closed.opened()
        with closed.gated(optimizer):
            optimizer.step()
        assert equal(bits(model, optimizer), before)


def test_with_yes_the_step_is_bit_for_bit_the_one_without_a_gate() -> None:
    model, optimizer = training()
    plain, plain_optimizer = training()
    gated = gate()
    for step in range(3):
        gated.ballots[:] = gated.close(4, step)
        gated.open()
        assert gated.opened()
        with gated.gated(optimizer):
            optimizer.step()
        plain_optimizer.step()
    assert equal(bits(model, optimizer), bits(plain, plain_optimizer))
    assert not hasattr(optimizer, "found_inf")


def test_ballots_of_another_step_or_generation_are_none() -> None:
    gated = gate()
    stale = gated.close(4, 6).clone()
    for generation, step in ((4, 7), (5, 6)):
        ballot = gated.close(generation, step)
        gated.ballots[:] = ballot
        gated.ballots[1] = stale
        gated.open()
        assert not gated.opened()
    assert torch.equal(gated.close(4, 6), stale), "every rank computes the same ballot"


def test_the_gate_says_no_before_it_was_ever_closed_and_opens_once() -> None:
    gated = gate()
    assert not gated.opened()
    with pytest.raises(NativeError, match="closed before it is opened"):
        gated.open()


def test_an_optimizer_that_looks_at_no_flag_is_refused_with_the_way_out() -> None:
    _, plain = training(fused=False)
    with pytest.raises(UsageError, match="fused=True"), gate().gated(plain):
        pass
    _, optimizer = training()
    optimizer.found_inf = torch.zeros(())
    with pytest.raises(UsageError, match="gradient scaler"), gate().gated(optimizer):
        pass
