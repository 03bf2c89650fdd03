"""Small trainings whose step depends on their state and its number alone."""

import torch
from torch import nn

from hpresil.snapshot.tracked import Tracked


class Training:
    """A net with BatchNorm and channels-last weights; step i depends on its state and i alone."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(
            memory_format=torch.channels_last
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1)
        self.objects = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def forward_backward(self, step):
        generator = torch.Generator().manual_seed(step)
        self.optimizer.zero_grad()
        self.model(torch.randn(2, 2, 5, 5, generator=generator)).square().sum().backward()

    def step(self, number):
        self.forward_backward(number)
        self.optimizer.step()
        self.scheduler.step()

    def digest(self):
        return Tracked(self.objects).digest()


def tracked_training(seed=0, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(steps):
        model(torch.ones(2, 2, 5, 5)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return Tracked({"model": model, "optimizer": optimizer, "scheduler": scheduler})


def contiguous(seed=0, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return Tracked({"model": model, "optimizer": optimizer})
