"""What the recipe is trained with: AdamW with two parameter groups, warm-up and cosine decay."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adamw(model: nn.Module, *, lr: float, weight_decay: float = 0.1) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and leaves vectors (the norms' weights) alone."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def warmup_cosine(step: int, *, warmup: int, total: int, floor: float = 0.1) -> float:
    """Return the factor of the learning rate at ``step``.

    It rises linearly over ``warmup`` steps to 1, then follows half a cosine to ``floor`` at ``total``
    and stays there.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def schedule(optimizer: torch.optim.Optimizer, *, warmup: int, total: int) -> LambdaLR:
    """Return a scheduler that follows `warmup_cosine`; step it once after each optimizer step."""
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup=warmup, total=total))
