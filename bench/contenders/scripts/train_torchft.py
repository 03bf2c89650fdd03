"""The workload under torchft: each replica group is one process, the others go on without one that dies.

Two things are not as torchft's own examples have them. Its hook in 0.2.0 ends the survivor: it asserts that a
future exists that an error has left empty; without the hook below there would be nothing to measure. And each
replica has a store of its own, so that one torchrun can start those of a node.
"""

import os
import time

import torch
from torch.distributed import TCPStore
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo
from workload import Workload, bits, loss_of

work = Workload()
REPLICA = int(os.environ["BENCH_FIRST"]) + int(os.environ["LOCAL_RANK"])
TOGETHER_S = 60.0
HEARTBEATS_S = 0.5


def hook(manager, bucket):
    pending = manager.allreduce(bucket.buffer())
    pending.wait()
    future = None if manager.errored() else getattr(pending.get_future(), "_fut", None)
    if future is None:
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
    return future


DistributedDataParallel._comm_hook = staticmethod(hook)


class Group(ProcessGroupGloo):
    """Marks each new group: the quorum that has asked for it is complete by then."""

    def configure(self, store_addr, replica_id, rank, world_size, *more):
        super().configure(store_addr, replica_id, rank, world_size, *more)
        work.marks.add("group", rank=REPLICA, world=world_size)


def begin_together():
    """Wait until all replicas are there and their heartbeats known, so that the first quorum has all of them.

    One that is started again finds that all have been there.
    """
    here = work.out / f"here-{REPLICA}"
    if here.exists():
        return
    here.touch()
    end = time.monotonic() + TOGETHER_S
    while len(list(work.out.glob("here-*"))) < int(os.environ["BENCH_REPLICAS"]):
        if time.monotonic() > end:
            raise TimeoutError(f"replica {REPLICA} waited {TOGETHER_S:g} s for the others to start")
        time.sleep(0.01)
    time.sleep(HEARTBEATS_S)


def managed(holder: dict, store: TCPStore) -> Manager:
    """Return the manager of this replica, whose state is that of the parts in ``holder``."""

    def load(state):
        holder["model"].load_state_dict(state["model"])
        holder["optimizer"].load_state_dict(state["optimizer"])
        work.marks.add("restored")

    return Manager(
        pg=Group(),
        min_replica_size=1,
        load_state_dict=load,
        state_dict=lambda: {key: thing.state_dict() for key, thing in holder.items()},
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        replica_id=f"replica-{REPLICA}",
        init_sync=False,  # its docs: if all begin with the same weights, as the seed makes them here
    )


def main() -> None:
    work.ballast(REPLICA)
    bare = work.build()
    holder = {}
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    manager = managed(holder, store)
    model = DistributedDataParallel(manager, bare)
    optimizer = Optimizer(manager, work.adam(model))
    holder.update(model=model, optimizer=optimizer)
    begin_together()
    while (begun := manager.current_step()) < work.steps:
        optimizer.zero_grad()
        loss = loss_of(model(work.batch(begun, REPLICA)))
        work.meet_fault(begun, REPLICA)
        loss.backward()
        manager.wait_quorum()
        # The quorum may have put this replica into another step, with the state of others and no part in it.
        step, part_of_it = manager.current_step(), manager.is_participating()
        optimizer.step()
        if manager.current_step() > step:
            parts = {REPLICA: bits(loss)} if part_of_it else {}
            work.marks.step(step, rank=REPLICA, world=manager.num_participants(), parts=parts)
        else:
            work.marks.add("noticed")
    os._exit(0)  # its threads do not end by themselves


main()
