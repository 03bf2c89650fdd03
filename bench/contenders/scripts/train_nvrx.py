"""The workload inside of NVRx's in-process restart: as many active ranks as BENCH_ACTIVE, BENCH_LEAST once a
node is lost; the others are spares.

What it needs and has no default for: gloo cannot be aborted, so a rank that waits for a hung one is let go by
the timeout of its group only, and that has to be over before it is taken for hung itself. Only steps are
watched, as with the other contenders: a new group and a checkpoint are waited for without a call to Python.

In 0.7.0 a rank that is given up because its node is gone is left in the store as bytes, which the barrier at
the end of the job cannot read; so it is made a number here.

BENCH_HANG_S, if it is set, is the limit after which a hung rank is ended, and the other limits and intervals
are as short as that allows.
"""

import datetime
import os

import nvidia_resiliency_ext.inprocess as inprocess
import torch.distributed as dist
from checkpoints import Checkpoints
from nvidia_resiliency_ext.inprocess import rank_assignment
from nvidia_resiliency_ext.inprocess.store import StoreMixin
from torch.nn.parallel import DistributedDataParallel
from workload import Workload, bits, loss_of

work = Workload()
PORT = int(os.environ["MASTER_PORT"])
HANG_S = float(os.environ.get("BENCH_HANG_S") or 0)
GROUP_S = 20.0
STEPS_S = HANG_S * 2 / 3
"""How long a step's collective may wait, if that is tuned: the rank that waits is not to be ended as well."""


def seconds(value: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=value)


def tuned() -> dict[str, datetime.timedelta]:
    return {
        "monitor_thread_interval": seconds(0.1),
        "monitor_process_interval": seconds(0.1),
        "heartbeat_interval": seconds(0.2),
        "progress_watchdog_interval": seconds(0.2),
        "last_call_wait": seconds(0.05),
        "soft_timeout": seconds(HANG_S * 0.9),
        "hard_timeout": seconds(HANG_S),
        "heartbeat_timeout": seconds(HANG_S),
        "termination_grace_time": seconds(0.5),
    }


as_bytes = StoreMixin.get_initial_ranks
StoreMixin.get_initial_ranks = lambda store, ranks: [int(rank) for rank in as_bytes(store, ranks)]
work.ballast(int(os.environ["RANK"]))
model = work.build()
optimizer = work.adam(model)


@inprocess.Wrapper(
    store_kwargs={"port": PORT + 1},
    rank_assignment=inprocess.Compose(
        rank_assignment.ActiveWorldSizeDivisibleBy(int(os.environ["BENCH_LEAST"])),
        rank_assignment.MaxActiveWorldSize(int(os.environ["BENCH_ACTIVE"])),
        rank_assignment.ShiftRanks(),
    ),
    # It watches this process from another one, which a lost node takes along (`Workload.meet_fault`).
    monitor_process_pidfile=str(work.out / f"beside-{os.getppid()}.{{rank}}"),
    **(tuned() if HANG_S else {}),
)
def train(call_wrapper: inprocess.CallWrapper | None = None) -> None:
    assert call_wrapper is not None
    turn = call_wrapper.iteration
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    optimizer.zero_grad()  # a backward pass that was aborted leaves gradients
    with call_wrapper.disable_hang_protection():
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
        replica = DistributedDataParallel(
            model, process_group=dist.new_group(timeout=seconds(STEPS_S)) if HANG_S else None
        )
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
            with call_wrapper.atomic(), call_wrapper.disable_hang_protection():
                saved.after(step)
    dist.destroy_process_group()


train()
