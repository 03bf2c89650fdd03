from itertools import pairwise

import pytest
import torch

from hpresil.recipes.llama.config import LlamaConfig
from hpresil.recipes.llama.model import Llama
from hpresil.recipes.llama.optimizer import adamw, schedule, warmup_cosine


def small() -> Llama:
    return Llama(LlamaConfig(dim=32, layers=2, heads=2, hidden=48, max_seq_len=16))


def test_matrices_decay_and_norm_weights_do_not():
    model = small()
    decayed, kept = adamw(model, lr=1e-3).param_groups
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    assert all(p.dim() >= 2 for p in decayed["params"])
    assert all(p.dim() < 2 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_the_rate_rises_linearly_then_falls_to_its_floor():
    factors = [warmup_cosine(step, warmup=4, total=20) for step in range(25)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a >= b for a, b in pairwise(factors[3:]))
    assert factors[12] == pytest.approx(0.55)
    assert factors[20:] == pytest.approx([0.1] * 5)


def test_the_scheduler_sets_every_group():
    optimizer = adamw(small(), lr=1.0)
    scheduler = schedule(optimizer, warmup=2, total=10)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert rates == [[0.5, 0.5], [1.0, 1.0], [1.0, 1.0]]


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(0)
    model = small()
    optimizer = adamw(model, lr=3e-3)
    tokens = torch.arange(34).reshape(2, 17) % 257
    losses = []
    for _ in range(20):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1.5
