"""What the tests of communicators have their ranks do; runs in the processes of a `RankPool`."""

import threading
import time

import torch

from hpresil.base.errors import PeerLost
from hpresil.comm.communicators import Wanted, transfer, warm
from hpresil.comm.gloo_communicators import GlooCommunicators
from hpresil.comm.parking import parked
from hpresil.comm.sockets import inodes, opened_since
from hpresil.comm.warming import Edge, plan as warming_plan


def communicators(here, generation):
    store = here.store(generation)
    here.kept["store"] = store
    return GlooCommunicators(store.set, lambda keys, _: store.multi_get(keys), hostname="127.0.0.1")


def bulk_here(here, rank, size, generation, names):
    """Build all at once, warm them, and say what a sum over each gives."""
    before, parked_before = inodes(), parked()
    built = communicators(here, generation).init_many(
        generation, [Wanted(name, rank, size) for name in names], 20.0
    )
    ring = [Edge(source, (source + 1) % size, 1000 + source) for source in range(size if size > 1 else 0)]
    for each in built:
        warm(each, warming_plan(size, rank, ring, sums=(64, 4096)), 20.0)
    sums = []
    for place, each in enumerate(built if size > 1 else ()):
        values = torch.full((3,), float(rank + place))
        each.group.finish([each.group.all_reduce(values)], _deadline())
        sums.append(values.tolist())
    closed = [each.close() for each in built]
    left = [what for what in parked() if what not in parked_before]  # by other tests in this process
    return [each.name for each in built], sums, closed, len(opened_since(before)), left


def _deadline():
    from hpresil.base.deadline import Deadline

    return Deadline(20.0, "a sum")


def bulk_until_given_up(here, rank, size, generation, names):
    """Begin to build what can never be whole, and be given up by another thread once the store was asked."""
    makes = communicators(here, generation)
    store, asked = here.kept["store"], threading.Event()
    fetch = store.multi_get
    makes._get = lambda keys, seconds: (asked.set(), fetch(keys))[1]

    def give_up():
        asked.wait(20.0)
        makes.abort("a newer generation")

    other = threading.Thread(target=give_up)
    other.start()
    began = time.monotonic()
    try:
        makes.init_many(generation, [Wanted(name, rank, size) for name in names], 15.0)
    except PeerLost as error:
        return str(error), time.monotonic() - began
    finally:
        other.join(20.0)
        store.end()
    return "built", 0.0


def bulk_with_a_stranger(here, rank, size, generation, names, alone):
    """Build; the one named ``alone`` is wanted by rank 0 only and misses its deadline."""
    makes = communicators(here, generation)
    wanted = [Wanted(name, rank, size) for name in names if rank == 0 or name != alone]
    try:
        built = makes.init_many(generation, wanted, 1.0)
    except PeerLost as error:
        return str(error)
    here.kept["built"] = built  # not closed: rank 0 may still be connecting to them
    return [each.name for each in built]


def transfer_here(here, rank, size, generation, made, nbytes, holders):
    """Run a transfer plan on bytes that only ``holders`` have; returns whether all are right now."""
    (built,) = communicators(here, generation).init_many(generation, [Wanted("recovery", rank, size)], 20.0)
    right = torch.arange(nbytes).to(torch.uint8)
    state = right.clone() if rank in holders else torch.zeros_like(right)
    transfer(built, made, state, 20.0)
    # Who is done first must not close while another one is still connecting to it.
    warm(built, warming_plan(size, rank, sums=(64,)), 20.0)
    built.close()
    return torch.equal(state, right)


def abort_here(here, rank, size, generation):
    """Rank 0 waits for bytes that never come, and is given up by two other threads."""
    (built,) = communicators(here, generation).init_many(generation, [Wanted("dp", rank, size)], 20.0)
    here.tell("built")
    if rank != 0:
        here.kept["other"] = built
        return None
    first = threading.Timer(0.05, built.abort, ["rank 1 hangs"])
    second = threading.Timer(0.3, built.abort, ["too late"])
    first.start()
    second.start()
    began = time.monotonic()
    try:
        warm(built, warming_plan(size, rank, [Edge(1, 0, 64)], sums=()), 20.0)
        said = "warm"
    except PeerLost as error:
        said = str(error)
    took = time.monotonic() - began
    second.join()
    return said, built.reason, took, built.close()
