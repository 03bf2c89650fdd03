"""The workload under torchft: each replica group is one process, the others go on without one that dies.

torchft 0.2.0 ends the survivor: its hook asserts that a future exists that an error has left empty. Without
the hook below there would be nothing to measure.
"""

import os
from datetime import timedelta

import torch
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo
from workload import Workload, bits, loss_of

work = Workload()
REPLICA = int(os.environ["REPLICA_GROUP_ID"])


def hook(manager, bucket):
    pending = manager.allreduce(bucket.buffer())
    pending.wait()
    future = None if manager.errored() else getattr(pending.get_future(), "_fut", None)
    if future is None:
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
    return future


DistributedDataParallel._comm_hook = staticmethod(hook)


def main() -> None:
    work.ballast(REPLICA)
    bare = work.build()
    holder = {}

    def load(state):
        holder["model"].load_state_dict(state["model"])
        holder["optimizer"].load_state_dict(state["optimizer"])
        work.marks.add("restored")

    manager = Manager(
        pg=ProcessGroupGloo(timeout=timedelta(seconds=5)),
        min_replica_size=1,
        load_state_dict=load,
        state_dict=lambda: {key: thing.state_dict() for key, thing in holder.items()},
        replica_id=f"replica-{REPLICA}",
        timeout=timedelta(seconds=30),
        init_sync=True,
    )
    model = DistributedDataParallel(manager, bare)
    optimizer = Optimizer(manager, work.adam(model))
    holder.update(model=model, optimizer=optimizer)
    work.marks.add("group", rank=REPLICA, world=0)
    while (step := manager.current_step()) < work.steps:
        optimizer.zero_grad()
        loss = loss_of(model(work.batch(step, REPLICA)))
        work.meet_fault(step, REPLICA)
        loss.backward()
        optimizer.step()
        if manager.current_step() > step:
            parts = {REPLICA: bits(loss)}
            work.marks.step(step, rank=REPLICA, world=manager.num_participants(), parts=parts)
        else:
            work.marks.add("noticed")
    os._exit(0)  # its threads do not end by themselves


main()
