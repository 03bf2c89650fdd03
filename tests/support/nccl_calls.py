"""What the tests of NCCL communicators have their ranks do, several on one device, in the processes of a
`RankPool`.

Each process says it is another machine (NCCL_HOSTID), so NCCL takes the network between them, whatever its
version: right for the ways a communicator ends, and slow.
"""

import os
import time

import torch

from hpresil import native
from hpresil.base.deadline import Deadline
from hpresil.base.errors import PeerLost
from hpresil.comm.commit_gate import CommitGate
from hpresil.comm.communicators import Operation, Wanted, transfer, warm
from hpresil.comm.graphs import CollectiveGraphs
from hpresil.comm.nccl_communicators import NcclCommunicator, NcclCommunicators
from hpresil.comm.transfer_plan import plan
from hpresil.comm.warming import Edge, plan as warming_plan

LONG_S = 60.0


def prepare(rank):
    """Set what NCCL reads once, and return (library, device)."""
    os.environ.update(
        NCCL_HOSTID=f"machine-{rank}",
        NCCL_SOCKET_IFNAME="lo",
        NCCL_IB_DISABLE="1",
        NCCL_NVLS_ENABLE="0",
        NCCL_MAX_CTAS="4",
        NCCL_RAS_ENABLE="0",
    )
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    torch.zeros(1, device=device)
    return native.Nccl.open(), device


def build(here, rank, size, generation, names):
    library, device = prepare(rank)
    store = here.store(generation, LONG_S)
    makes = NcclCommunicators(
        library,
        device,
        ids=lambda _, __, roots: [library.unique_id() for _ in range(roots)],
        set=store.set,
        get=lambda keys, _: store.multi_get(keys),
    )
    return library, device, makes.init_many(generation, [Wanted(n, rank, size) for n in names], LONG_S)


def total(communicator, value):
    values = torch.full((1000,), float(value), device=communicator.device)
    raw = values.view(torch.uint8)
    communicator.run([[Operation("all_reduce", raw, raw)]], "a sum", LONG_S)
    return values.unique().tolist()


def bulk_here(here, rank, size, generation):
    library, _, built = build(here, rank, size, generation, ["a", "b", "c"])
    ring = [Edge(source, (source + 1) % size, 1 << 20) for source in range(size)]
    for each in built:
        warm(each, warming_plan(size, rank, ring, sums=(4096, 1 << 20, 8 << 20)), LONG_S)
    sums = [total(each, rank + place) for place, each in enumerate(built)]
    return library.version, library.features, sums, [each.close(LONG_S) for each in built]


def transfer_here(here, rank, size, generation, holders):
    _, device, (built,) = build(here, rank, size, generation, ["recovery"])
    nbytes = 3_000_001
    whole = [(0, nbytes)]
    takers = [other for other in range(size) if other not in holders]
    right = torch.arange(nbytes, device=device).to(torch.uint8)
    state = right.clone() if rank in holders else torch.zeros_like(right)
    made = plan(size, dict.fromkeys(holders, whole), dict.fromkeys(takers, whole), chunk_bytes=200_000)
    transfer(built, made, state, LONG_S)
    return torch.equal(state, right), built.close(LONG_S)


def wait_for_the_dead(here, rank, size, generation):
    """Every rank but the last sums with it after it was killed; returns how the wait ended, and the abort."""
    _, _, (built,) = build(here, rank, size, generation, ["dp"])
    assert total(built, 1) == [float(size)]
    here.tell("built")
    if rank == size - 1:
        time.sleep(LONG_S)
    values = torch.ones(1 << 20, device=built.device).view(torch.uint8)
    began = time.monotonic()
    try:
        while True:
            built.run([[Operation("all_reduce", values, values)]], "a sum with the dead", 3.0)
    except PeerLost as error:
        said = str(error)
    took = time.monotonic() - began
    ended = built.abort("rank was killed")
    torch.cuda.synchronize()
    return said, took, ended, built.reason


def shrink_here(here, rank, size, generation):
    """Shrink without the last rank, sum, then grow it back and sum again; by what this NCCL can."""
    library, device, (built,) = build(here, rank, size, generation, ["dp"])
    if "shrink" not in library.features:
        return "no shrink", None
    small = None
    if rank < size - 1:
        if "revoke" in library.features:
            built.native.revoke(LONG_S)
        end = built.native.shrink([size - 1], generation + 1, LONG_S)
        small = NcclCommunicator(Wanted("dp", rank, size - 1), generation + 1, end, device)
    sums = None if small is None else total(small, rank)
    if "grow" not in library.features:
        return sums, None
    store = here.store(generation + 1, LONG_S)
    if rank == 0:
        grown_id = small.native.grow_id()
        store.set("grow", grown_id)
    if small is not None:
        end = small.native.grow(size, grown_id if rank == 0 else None, generation + 2, LONG_S)
    else:
        end = library.join("dp", generation + 2, rank, size, store.get("grow"), LONG_S)
    return sums, total(NcclCommunicator(Wanted("dp", rank, size), generation + 2, end, device), rank)


def suspend_here(here, rank, size, generation):
    library, _, (built,) = build(here, rank, size, generation, ["stand-in"])
    if "suspend" not in library.features:
        return "no suspension"
    before = total(built, rank)
    built.native.suspend(LONG_S)
    built.native.resume(LONG_S)
    return before, total(built, rank)


def gated_step_here(here, rank, size, generation, votes):
    """One fused step behind the vote on the device; returns what the gate said and whether parameters
    moved."""
    _, device, (built,) = build(here, rank, size, generation, ["vote"])
    parameter = torch.nn.Parameter(torch.ones(1000, device=device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    gate = CommitGate(size, device)
    ballot = gate.close(generation, 5)
    if not votes:
        ballot.zero_()
    gather = Operation("all_gather", ballot.view(torch.uint8), gate.ballots.view(torch.uint8))
    built.enqueue([[gather]], "the vote", LONG_S)
    gate.open()
    with gate.gated(optimizer):
        optimizer.step()
    opened = gate.opened()
    deadline = Deadline(LONG_S, "the device")
    torch.cuda.synchronize()
    deadline.check()
    moved = not torch.equal(parameter.detach(), torch.ones_like(parameter))
    return opened, moved, float(optimizer.state[parameter]["step"]), built.close(LONG_S)


def graph_here(here, rank, size, generation):
    """Sum in a graph, in two generations of communicators; returns the sums, captures and clean ends."""
    memory = {}
    graphs = CollectiveGraphs()

    def work():
        raw = memory["values"].view(torch.uint8)
        memory["communicator"].enqueue([[Operation("all_reduce", raw, raw)]], "a sum in a graph", LONG_S)
        return memory["values"] * 2

    graphs.add("sum", work)
    sums, dropped, closed, doubled = [], [], [], []
    for turn in range(2):
        _, device, (built,) = build(here, rank, size, generation + turn, ["dp"])
        memory.update(communicator=built, values=torch.ones(1000, device=device))
        total(built, 1)  # connects, which a capture does not allow
        for _ in range(3):
            memory["values"].fill_(rank + turn)
            made = graphs.replay("sum")
            torch.cuda.synchronize()
            sums.append(memory["values"].unique().tolist())
        doubled.append(made)  # lives on while the next generation captures
        dropped.append(graphs.drop())
        closed.append(built.close(LONG_S))
    return sums, [made.unique().tolist() for made in doubled], dropped, closed
