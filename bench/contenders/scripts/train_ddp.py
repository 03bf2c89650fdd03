"""The workload under plain DistributedDataParallel over gloo: no protection."""

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from workload import Workload, bits, loss_of


def main() -> None:
    work = Workload()
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = work.build()
    replica, optimizer = DistributedDataParallel(model), work.adam(model)
    for step in range(work.steps):
        loss = loss_of(replica(work.batch(step, rank)))
        work.meet_fault(step, rank)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        work.marks.step(step, rank=rank, world=world, parts={rank: bits(loss)})
    dist.destroy_process_group()


main()
