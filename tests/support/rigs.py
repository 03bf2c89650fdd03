"""Small trainings of many kinds; each can be built again from any seed and trained step by step."""

import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from hpresil.snapshot.tracked import Tracked


class Rig:
    """A training whose step ``i`` depends on its state and ``i`` alone."""

    def __init__(self, model, optimizer, *, inputs=(4, 6), averaged=None, metric=False, **others):
        self.model, self.optimizer, self.averaged, self.metric = model, optimizer, averaged, metric
        self.others = others
        objects = {"model": model, "optimizer": optimizer, **others}
        self.objects = objects if averaged is None else {**objects, "averaged": averaged}
        self.tracked = Tracked(self.objects)
        self._inputs = inputs

    def batch(self, index):
        generator = torch.Generator().manual_seed(1000 + index)
        if callable(self._inputs):
            return self._inputs(generator)
        first = next(self.model.parameters())
        return torch.randn(self._inputs, generator=generator).to(first.dtype)

    def train(self, steps):
        scaler = self.others.get("scaler")
        for index in steps:
            self.optimizer.zero_grad()
            loss = self.model(self.batch(index)).float().square().mean()
            if scaler is None:
                loss.backward()
                self.optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
            for name, other in self.others.items():
                if name != "scaler":
                    other.step(loss.detach()) if self.metric else other.step()
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
        return self


def mlp(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


class Tied(nn.Module):
    """A decoder in miniature: tied embedding, a frozen part, an unused one, a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Parameter(torch.randn(3))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("phase", torch.randn(5, 8), persistent=False)
        self.register_buffer("mask", torch.ones(1, 1).expand(5, 5))

    def forward(self, tokens):
        hidden = self.embed(tokens) + self.phase
        return self.head(self.frozen(self.layer(hidden)))


class Counting(nn.Module):
    """A module that keeps python values next to its parameters."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.calls, self.trace = 0, torch.zeros(2)

    def forward(self, batch):
        self.calls += 1
        self.trace = self.trace + 1.5
        return self.inner(batch) * (1 + self.calls / 100) + self.trace.sum()

    def get_extra_state(self):
        return {"calls": self.calls, "trace": self.trace}

    def set_extra_state(self, state):
        self.calls, self.trace = state["calls"], state["trace"]


class WideMoments(torch.optim.Optimizer):
    """fp32 moments and master copies of bf16 parameters, python values in the state, and a loose entry."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        self.state["total"] = {"steps": self.state.get("total", {"steps": 0})["steps"] + 1}
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(
                        count=0, moments=(torch.zeros(p.shape), torch.zeros(p.shape)), master=p.float()
                    )
                state["count"] += 1
                first, second = state["moments"]
                first.lerp_(p.grad.float(), 0.1)
                second.lerp_(p.grad.float() ** 2, 0.01)
                state["master"] -= group["lr"] * first / (second.sqrt() + 1e-6) / state["count"]
                p.copy_(state["master"])


def _tied(seed):
    torch.manual_seed(seed)
    model = Tied()
    trained = [p for n, p in model.named_parameters() if n != "unused"]
    matrices, vectors = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    groups = [{"params": matrices}, {"params": [model.unused], "weight_decay": 0.1}]
    groups.append({"params": vectors, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    tokens = lambda generator: torch.randint(0, 11, (2, 5), generator=generator)  # noqa: E731
    return Rig(model, optimizer, inputs=tokens, scheduler=lrs.CosineAnnealingLR(optimizer, 9))


def _convolution(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    model = model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    return Rig(model, optimizer, inputs=(2, 3, 8, 8), averaged=averaged, scheduler=lrs.StepLR(optimizer, 2))


def _wide_moments(seed):
    model = mlp(seed, torch.bfloat16)
    return Rig(model, WideMoments(model.parameters(), 1e-2))


def _bf16(seed):
    model = mlp(seed, torch.bfloat16)
    return Rig(model, torch.optim.AdamW(model.parameters(), lr=1e-2))


def _counting(seed):
    torch.manual_seed(seed)
    model = Counting()
    return Rig(model, torch.optim.SGD(model.parameters(), lr=0.1))


def _scaled(seed):
    model = mlp(seed)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    return Rig(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), scaler=scaler)


def _tensor_lr(seed):
    model = mlp(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2), fused=True)
    return Rig(model, optimizer, scheduler=lrs.ExponentialLR(optimizer, 0.7))


def _muon(seed):
    model = mlp(seed)
    optimizer = torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=1e-2)
    return Rig(model, optimizer)


def _with(optimizer, **options):
    def build(seed):
        model = mlp(seed)
        return Rig(model, optimizer(model.parameters(), **options))

    return build


def _scheduled(schedule, *, metric=False):
    def build(seed):
        model = mlp(seed)
        half = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2].parameters()}]
        optimizer = torch.optim.SGD(half, lr=0.1, momentum=0.9)
        return Rig(model, optimizer, metric=metric, scheduler=schedule(optimizer))

    return build


class Decay:
    """A schedule with state of its own."""

    def __init__(self):
        self.seen = 0

    def __call__(self, epoch):
        self.seen += 1
        return 1 / (1 + self.seen)


_SCHEDULES = {
    "lambda": lambda o: lrs.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "callable": lambda o: lrs.LambdaLR(o, Decay()),
    "multiplicative": lambda o: lrs.MultiplicativeLR(o, lambda e: 0.8),
    "step": lambda o: lrs.StepLR(o, 2, 0.3),
    "multistep": lambda o: lrs.MultiStepLR(o, [1, 3, 3, 4]),
    "constant": lambda o: lrs.ConstantLR(o, 0.3, 4),
    "linear": lambda o: lrs.LinearLR(o, 0.1, total_iters=4),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.7),
    "polynomial": lambda o: lrs.PolynomialLR(o, 6, 0.9),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 7),
    "warm-restarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 2),
    "cyclic": lambda o: lrs.CyclicLR(o, 0.01, 0.2, step_size_up=2),
    "cyclic-own": lambda o: lrs.CyclicLR(o, 0.01, 0.2, step_size_up=2, scale_fn=lambda x: 1 / (1 + x)),
    "one-cycle": lambda o: lrs.OneCycleLR(o, 0.2, total_steps=9),
    "swa": lambda o: SWALR(o, 0.01, anneal_epochs=4),
    "sequential": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, 0.1, total_iters=2), lrs.ExponentialLR(o, 0.5)], [2]
    ),
    "chained": lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.5, 4), lrs.ExponentialLR(o, 0.9)], o),
}  # fmt: skip

RIGS = {
    "tied transformer": _tied,
    "channels-last convolution, two groups, averaged": _convolution,
    "wide moments": _wide_moments,
    "bf16": _bf16,
    "extra state": _counting,
    "scaled": _scaled,
    "tensor lr, fused": _tensor_lr,
    "muon": _muon,
    "adamw": _with(torch.optim.AdamW, lr=1e-2),
    "adamw fused amsgrad": _with(torch.optim.AdamW, lr=1e-2, fused=True, amsgrad=True),
    "adamw foreach": _with(torch.optim.AdamW, lr=1e-2, foreach=True),
    "adam maximize": _with(torch.optim.Adam, lr=1e-2, maximize=True, weight_decay=0.1),
    "sgd": _with(torch.optim.SGD, lr=0.1),
    "sgd nesterov": _with(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": _with(torch.optim.Adagrad, lr=0.1, lr_decay=0.1),
    "rmsprop": _with(torch.optim.RMSprop, lr=1e-2, centered=True, momentum=0.5),
    "adafactor": _with(torch.optim.Adafactor, lr=1e-2),
    "asgd": _with(torch.optim.ASGD, lr=1e-2),
    "adadelta": _with(torch.optim.Adadelta),
    "adamax": _with(torch.optim.Adamax),
    "nadam": _with(torch.optim.NAdam),
    "radam": _with(torch.optim.RAdam, lr=1e-2),
    "rprop": _with(torch.optim.Rprop),
    **{f"schedule {name}": _scheduled(schedule) for name, schedule in _SCHEDULES.items()},
    "schedule plateau": _scheduled(lambda o: lrs.ReduceLROnPlateau(o, patience=0, cooldown=1), metric=True),
}
