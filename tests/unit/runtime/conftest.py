from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from hpresil.base.config import Config
from hpresil.runtime import environment
from hpresil.runtime.run import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run() -> Iterator[MakeRun]:
    """Make runs of one worker without a launcher, and end their threads afterwards."""
    made: list[Run] = []
    before = set(threading.enumerate())

    def make(**settings: int) -> Run:
        made.append(Run(Config(**settings), environment.read({})))
        return made[-1]

    yield make
    for run in made:
        run.close()
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("hpresil")]
    assert not left, f"threads left behind: {left}"


class Task:
    """A small model with its optimizer and data."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    @staticmethod
    def data(step: int, slot: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(step * 1000 + slot * 10 + j)
        return torch.randn(4, 6, generator=generator), torch.randint(0, 3, (4,), generator=generator)

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])


@pytest.fixture
def task() -> Task:
    return Task()


@pytest.fixture
def make_task() -> type[Task]:
    return Task
