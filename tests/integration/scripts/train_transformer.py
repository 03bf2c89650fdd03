"""A small causal transformer on random tokens: tied embedding, dropout, AdamW with two groups, cosine."""

from __future__ import annotations

import argparse

import torch
from reserve import wait_for_spares
from torch import nn

import hpresil

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--width", type=int, default=32)
arguments = parser.parse_args()

run = hpresil.init(hpresil.Config(slots=6, microbatch_size=2, microbatches=2))


class Tokens(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 97

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = torch.randint(0, 50, (17,), generator=torch.Generator().manual_seed(index))
        return row[:-1], row[1:]


class Model(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.unused = nn.Linear(3, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        return self.head(self.layers(self.embedding(tokens), mask=mask, is_causal=True))


model = Model(arguments.width).to(run.device)
decay = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW(
    [{"params": decay, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=3e-3
)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
run.track(model=model, optimizer=optimizer, scheduler=scheduler)

for step in run.steps(arguments.steps):
    with step:
        for batch in step.microbatches(Tokens()):
            logits = model(batch.inputs)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
            step.backward(loss, weight=batch.targets.numel())
        step.apply(optimizer, max_norm=1.0)
        scheduler.step()
    wait_for_spares(step.index, step.committed)
    run.log(loss=step.loss, lr=scheduler.get_last_lr()[0])
