"""Data-parallel training under plain torchrun that goes on from memory after a worker dies.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nproc-per-node 2 --max-restarts 3 examples/snapshots_under_torchrun.py --steps 200 --die-at 120

torchrun starts all workers anew; they go on from the newest version that all of them had, without a
checkpoint on disk. The variable has torchrun begin with an empty store: in the one that it keeps otherwise,
restarted workers may find the addresses of those before them, and fail to connect. ``--die-at N`` kills rank
1 at step N, once, to show it.
"""

from __future__ import annotations

import argparse
import os
import signal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import hpresil


def batch(step: int, rank: int) -> torch.Tensor:
    """The data of a step follow from its number, so that a step made again sees the same."""
    return torch.randn(16, 64, generator=torch.Generator().manual_seed(1000 * step + rank))


def main() -> None:
    """Train; torchrun runs this in every worker."""
    parser = argparse.ArgumentParser(description="Train under plain torchrun with snapshots in memory.")
    parser.add_argument("--steps", type=int, default=100, help="length of the training in steps")
    parser.add_argument("--die-at", type=int, help="kill rank 1 at this step, once")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64))
    replicas = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    with hpresil.snapshot.Snapshots({"model": model, "optimizer": optimizer}) as snapshots:
        version = snapshots.restore()
        if rank == 0 and version is not None:
            print(f"goes on from version {version}", flush=True)
        for step in range(version or 0, args.steps):
            optimizer.zero_grad()
            loss = replicas(batch(step, rank)).square().mean()
            loss.backward()
            if step == args.die_at and rank == 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            optimizer.step()  # waits until the last version is copied
            snapshots.begin(step + 1)  # copied while the next step computes
    if rank == 0:
        weight = sum(parameter.double().sum() for parameter in model.parameters())
        print(f"loss {loss.item().hex()}, weights {float(weight).hex()}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
