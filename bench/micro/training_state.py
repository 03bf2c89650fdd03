"""State of real training, to measure compression on: a small transformer, trained for some hundred steps.

The text is the source code of Python's standard library, one token a byte. Each case gives three versions
of the same arrays: one, the next step's, and one ten steps later.

    dense fp32    every parameter is trained; Adam's moments in fp32
    dense bf16    the same model; parameters, gradients and moments are kept in bf16, arithmetic is fp32's
    adapters      a frozen base and low-rank adapters beside its linear layers; only these change
    embedding     a large embedding table of which a step touches few rows (SparseAdam), and a small dense
    head
"""

from __future__ import annotations

import glob
import os
import sysconfig
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

CONTEXT, BATCH = 64, 8
Version = list[tuple[int, np.ndarray]]
"""(bytes of an element, contents as bytes) of each tensor, in one order for all versions."""


class Case(NamedTuple):
    name: str
    before: Version
    next: Version
    later: Version


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.reshape(batch, length, 4, width // 4).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


class Language(nn.Module):
    def __init__(self, width: int = 192, layers: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, 256)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places.weight
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Adapted(nn.Module):
    """A frozen linear layer and a trained product of two thin matrices beside it."""

    def __init__(self, base: nn.Linear, rank: int = 8) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = (
            nn.Linear(base.in_features, rank, bias=False),
            nn.Linear(rank, base.out_features, bias=False),
        )
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Recommender(nn.Module):
    """Predicts a byte from a hash of the three before it; most rows are never seen."""

    def __init__(self, rows: int = 60_000, width: int = 64) -> None:
        super().__init__()
        self.rows = rows
        self.table, self.head = nn.Embedding(rows, width, sparse=True), nn.Linear(width, 256)

    def forward(self, tokens):
        grams = (tokens[:, :-2] * 65_599 + tokens[:, 1:-1] * 257 + tokens[:, 2:]) * 40_503 % self.rows
        return self.head(self.table(grams))


def corpus() -> torch.Tensor:
    paths = sorted(glob.glob(os.path.join(sysconfig.get_paths()["stdlib"], "*.py")))
    text = b"".join(open(path, "rb").read() for path in paths)  # noqa: SIM115
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def batches(text: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    while True:
        at = torch.randint(len(text) - CONTEXT - 1, (BATCH, 1), generator=random)
        taken = text[at + torch.arange(CONTEXT + 1)].long()
        yield taken[:, :-1], taken[:, 1:]


def contents(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Version:
    tensors = [tensor for _, tensor in sorted(model.state_dict().items())]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                tensors += [state[key] for key in ("exp_avg", "exp_avg_sq") if key in state]
    return [
        (tensor.element_size(), tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().copy())
        for tensor in tensors
    ]


def loss_of(model: nn.Module, inputs, targets, trim: int):
    scores = model(inputs)
    return nn.functional.cross_entropy(scores.reshape(-1, 256), targets[:, trim:].reshape(-1))


def train(name: str, model: nn.Module, optimizers, steps: int, trim: int = 0) -> Case:
    kept = {}
    for step, (inputs, targets) in zip(range(steps + 11), batches(corpus()), strict=False):
        if step in (steps, steps + 1, steps + 10):
            kept[step] = contents(model, optimizers)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss_of(model, inputs, targets, trim).backward()
        for optimizer in optimizers:
            optimizer.step()
    return Case(name, *kept.values())


def dense(steps: int) -> Case:
    torch.manual_seed(0)
    model = Language()
    return train("dense fp32", model, [torch.optim.AdamW(model.parameters(), lr=1e-3)], steps)


def dense_bf16(steps: int) -> Case:
    """What is kept is bf16; a processor without bf16 arithmetic computes with it as fp32."""
    torch.manual_seed(0)
    model, held = Language(), Language().to(torch.bfloat16)
    optimizer = torch.optim.AdamW(held.parameters(), lr=1e-3)
    kept = {}
    for step, (inputs, targets) in zip(range(steps + 11), batches(corpus()), strict=False):
        if step in (steps, steps + 1, steps + 10):
            kept[step] = contents(held, [optimizer])
        model.load_state_dict(held.state_dict())
        model.zero_grad()
        loss_of(model, inputs, targets, 0).backward()
        for mine, its in zip(held.parameters(), model.parameters(), strict=True):
            assert its.grad is not None
            mine.grad = its.grad.to(torch.bfloat16)
        optimizer.step()
    return Case("dense bf16", *kept.values())


def adapters(steps: int) -> Case:
    torch.manual_seed(0)
    model = Language().requires_grad_(False)
    for block in model.blocks:
        block.qkv, block.up = Adapted(block.qkv), Adapted(block.up)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return train("adapters", model, [torch.optim.AdamW(trained, lr=1e-3)], steps)


def embedding(steps: int) -> Case:
    torch.manual_seed(0)
    model = Recommender()
    optimizers = [
        torch.optim.SparseAdam(model.table.parameters(), lr=1e-3),
        torch.optim.AdamW(model.head.parameters(), lr=1e-3),
    ]
    return train("embedding", model, optimizers, steps, trim=2)


def cases(steps: int = 300) -> Iterator[Case]:
    makers: list[Callable[[int], Case]] = [dense, dense_bf16, adapters, embedding]
    for make in makers:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same state on every machine, no threads that spin beside others
        try:
            case = make(steps)
        finally:
            torch.set_num_threads(threads)
        yield case
