"""The workload inside of NVRx's in-process restart: as many active ranks as BENCH_ACTIVE, the others are
spares.

BENCH_TUNED=1 shortens the intervals at which it looks for faults.
"""

import datetime
import os

import nvidia_resiliency_ext.inprocess as inprocess
import torch.distributed as dist
from checkpoints import Checkpoints
from nvidia_resiliency_ext.inprocess import rank_assignment
from torch.nn.parallel import DistributedDataParallel
from workload import Workload, bits, loss_of

work = Workload()
ACTIVE = int(os.environ["BENCH_ACTIVE"])
PORT = int(os.environ["MASTER_PORT"])
GROUP_S = 20.0


def seconds(value: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=value)


TUNED = {
    "monitor_thread_interval": seconds(0.1),
    "monitor_process_interval": seconds(0.1),
    "heartbeat_interval": seconds(0.2),
    "progress_watchdog_interval": seconds(0.2),
    "last_call_wait": seconds(0.05),
    "heartbeat_timeout": seconds(5),
}
work.ballast(int(os.environ["RANK"]))
model = work.build()
optimizer = work.adam(model)


@inprocess.Wrapper(
    store_kwargs={"port": PORT + 1},
    rank_assignment=inprocess.Compose(
        rank_assignment.ActiveWorldSizeDivisibleBy(ACTIVE),
        rank_assignment.MaxActiveWorldSize(ACTIVE),
        rank_assignment.ShiftRanks(),
    ),
    **(TUNED if os.environ.get("BENCH_TUNED") == "1" else {}),
)
def train(call_wrapper: inprocess.CallWrapper | None = None) -> None:
    assert call_wrapper is not None
    turn = call_wrapper.iteration
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        PORT + 2 + turn,
        world,
        rank == 0,
        multi_tenant=True,
        wait_for_workers=True,
        use_libuv=True,
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=seconds(GROUP_S))
    replica = DistributedDataParallel(model)
    work.marks.add("group", rank=rank, world=world)
    saved = Checkpoints(model, optimizer, int(os.environ["BENCH_SAVE_EVERY"]))
    begin = saved.restore()
    work.marks.add("restored", step=begin)
    for step in range(begin, work.steps):
        loss = loss_of(replica(work.batch(step, rank)))
        if turn == 0:
            work.meet_fault(step, rank)
        try:
            loss.backward()
        except BaseException:
            work.marks.add("noticed")
            raise
        optimizer.step()
        optimizer.zero_grad()
        work.marks.step(step, rank=rank, world=world, parts={rank: bits(loss)})
        if (step + 1) % int(os.environ["BENCH_SAVE_EVERY"]) == 0:
            with call_wrapper.atomic():
                saved.after(step)
    dist.destroy_process_group()


train()
