"""The workload under plain DistributedDataParallel over gloo: the healthy step to compare with.

torchrun --standalone --nproc-per-node 2 bench/recovery/train_ddp.py --out DIR --steps 30
"""

import argparse
from pathlib import Path

import torch.distributed as dist
import workload
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank, marks = dist.get_rank(), workload.Marks(args.out)
    model = workload.build()
    replica, optimizer = DistributedDataParallel(model), workload.adam(model)
    for step in range(args.steps):
        marks.begin()
        loss = workload.loss_of(replica(workload.batch(step, rank)))
        marks.part("forward")
        loss.backward()
        marks.part("backward and reduction")
        optimizer.step()
        optimizer.zero_grad()
        marks.part("optimizer")
        marks.end(step, rank)
    dist.destroy_process_group()


main()
