"""A small convolution net: BatchNorm, SGD with momentum in two groups, an EMA copy, StepLR, bf16 head."""

from __future__ import annotations

import argparse

import torch
from reserve import wait_for_spares
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hpresil

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=12)
arguments = parser.parse_args()

run = hpresil.init(hpresil.Config(slots=5, microbatch_size=4, seed=3))


def images(step: int, slot: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step * 64 + slot)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randint(0, 5, (4,), generator=generator)


model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5),
).to(run.device, memory_format=torch.channels_last)  # fmt: skip
model[0].bias.requires_grad_(False)
biases = [p for n, p in model.named_parameters() if n.endswith("bias") and p.requires_grad]
weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
optimizer = torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 0.02}], lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
run.track(model=model, optimizer=optimizer, scheduler=scheduler, ema=ema, buffers={"*running_var": "mean"})

for step in run.steps(arguments.steps):
    with step:
        for x, y in step.microbatches(images):
            jitter = torch.rand(1, device=run.device)  # drawn from the slot's stream
            step.backward(nn.functional.cross_entropy(model(x.to(run.device) + jitter), y.to(run.device)))
        model[-1].weight.grad.add_(0.01 * torch.randn_like(model[-1].weight))  # equal on every rank
        step.apply(optimizer, max_norm=2.0)
        scheduler.step()
        ema.update_parameters(model)
    wait_for_spares(step.index, step.committed)
    run.log(loss=step.loss)
