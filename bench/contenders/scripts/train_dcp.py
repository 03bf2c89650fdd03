"""The workload under DDP with a checkpoint by torch.distributed.checkpoint every BENCH_SAVE_EVERY steps.

For launchers that start all processes again after a fault (torchrun, ft_launcher).
"""

import os
import signal
import sys

import heartbeats
import torch.distributed as dist
from checkpoints import Checkpoints
from limits import group_of_steps
from torch.nn.parallel import DistributedDataParallel
from workload import Workload, bits, loss_of


def main() -> None:
    work = Workload()
    signal.signal(signal.SIGTERM, lambda *_: (work.marks.add("noticed"), sys.exit(143)))
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    work.ballast(rank)
    model = work.build()
    optimizer = work.adam(model)
    replica = DistributedDataParallel(model, process_group=group_of_steps())
    work.marks.add("group", rank=rank, world=world)
    beat = heartbeats.begin()
    saved = Checkpoints(model, optimizer, int(os.environ["BENCH_SAVE_EVERY"]))
    begin = saved.restore()
    work.marks.add("restored", step=begin)
    for step in range(begin, work.steps):
        loss = loss_of(replica(work.batch(step, rank)))
        work.meet_fault(step, rank)
        try:
            loss.backward()
        except RuntimeError:
            work.marks.add("noticed")
            raise
        optimizer.step()
        optimizer.zero_grad()
        beat()
        work.marks.step(step, rank=rank, world=world, parts={rank: bits(loss)})
        if saved.after(step):
            beat()
    dist.destroy_process_group()


main()
