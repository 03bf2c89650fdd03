"""What the tests of process groups have their ranks do; runs in the processes of a `RankPool`.

The first argument of each is the process's `Here`; arguments and results travel through a pipe.
"""

import os
import signal
import time

import torch

from hpresil.base.errors import PeerLost
from hpresil.comm import exchange, homes, native_reduction, reduction, segments
from hpresil.comm.folding import Finishing, Folding
from hpresil.comm.group import Group
from hpresil.comm.homes import Homes
from hpresil.comm.parking import parked
from hpresil.comm.segments import Neighbours
from hpresil.comm.small_messages import broadcast_bytes, vote
from hpresil.comm.sockets import inodes, opened_since
from hpresil.native import Page
from reduction_case import BLOCK, digest, tensors


def buffers(case, readable):
    """Return flat tensors for one gradient, full of sevens; in a segment if ``readable``."""
    dtypes, lengths = (torch.float32, torch.float64), [n * BLOCK for n in case.blocks]
    if not readable:
        return [torch.full((n,), 7.0, dtype=d) for n, d in zip(lengths, dtypes, strict=True)]
    flats = segments.allocate(dtypes, lengths)
    for flat in flats:
        flat.fill_(7.0)
    return flats


def contributed(case, carried, readable):
    """Return the nodes of a rank; in segments if ``readable``."""
    nodes = tensors(case, carried)
    for node, flats in nodes.items() if readable else ():
        nodes[node] = buffers(case, readable=True)
        for into, flat in zip(nodes[node], flats, strict=True):
            into.copy_(flat)
    return nodes


REDUCTIONS = {"canonical": reduction.reduce, "native": native_reduction.reduce}


class Unable(Neighbours):
    """The kernel allows nothing."""

    def open(self, names):
        return not names


def reduce_case(
    here,
    case,
    carried,
    rank,
    generation,
    chunk_blocks=64,
    flush=False,
    node="a",
    kind="canonical",
    blind=False,
):
    """Runs in a rank's process: one reduction, in a group that is built when its generation is new.

    Args:
        node: The node it is to be on; None: in memory that nobody can read.
        blind: It cannot open what others on its node name.

    Returns its answer, and the bytes that arrived and that were read.
    """
    segments.stand_on(node or "a")
    readable = node is not None
    if here.group is None or here.group.generation != generation:
        if here.group is not None:
            assert here.group.close(2.0)
        here.build(generation, rank, len(carried))
    nodes, out = contributed(case, carried[rank], readable), buffers(case, readable)
    before = [digest(flat.numpy()) for own in nodes.values() for flat in own]
    reduction.CHUNK_BLOCKS = chunk_blocks
    homes._neighbours = Unable() if blind else Neighbours()
    torch.set_flush_denormal(flush)
    try:
        reduced = REDUCTIONS[kind](
            here.group,
            nodes=nodes,
            out=out,
            carried=carried,
            slots=case.slots,
            stats=torch.from_numpy(case.stats(rank, len(carried))),
            norm_blocks=case.norm_blocks,
            scale_of=lambda stats: float(sum(stats.tolist())),
        )
        still = float("2.2250738585072014e-308") * 0.5 == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert still == flush, "the thread's flush-denormal mode changed"
    assert before == [digest(flat.numpy()) for own in nodes.values() for flat in own], "a node was written"
    answer = [digest(flat.numpy()) for flat in out], reduced.square_sum.hex(), reduced.stats.tolist()
    return answer, reduced.arrived_bytes, reduced.read_bytes


def vote_here(here, rank, size, generation, wishes):
    here.build(generation, rank, size)
    first = vote(here.group, wishes)
    return first, vote(here.group)


def broadcast_here(here, rank, size, generation, root, count):
    if here.group is None or here.group.generation != generation:
        here.build(generation, rank, size)
    values = (
        torch.arange(count, dtype=torch.int64).to(torch.uint8)
        if rank == root
        else torch.zeros(count, dtype=torch.uint8)
    )
    broadcast_bytes(here.group, values, root)
    return bytes(values.numpy()) == bytes(i % 256 for i in range(count))


def build_here(here, rank, size, generation, page=False):
    before = inodes()
    if here.group is not None:
        assert here.group.close(2.0), parked()
    began = time.monotonic()
    here.build(generation, rank, size, page=own_page(here) if page else None)
    here.kept["sockets"] = before
    return time.monotonic() - began


def reduce_here(here, case, carried, node=None, kind="canonical"):
    """One reduction; returns its answer, or how it failed and at what monotonic time."""
    rank = here.group.rank
    segments.stand_on(node or "a")
    nodes, out = contributed(case, carried[rank], node is not None), buffers(case, node is not None)
    stats = torch.from_numpy(case.stats(rank, len(carried)))
    here.tell("entered")
    try:
        reduced = REDUCTIONS[kind](
            here.group,
            nodes=nodes,
            out=out,
            carried=carried,
            slots=case.slots,
            stats=stats,
            norm_blocks=case.norm_blocks,
            scale_of=lambda summed: float(sum(summed.tolist())),
        )
    except PeerLost as error:
        ended = time.monotonic()
        here.kept["lost_out"], here.kept["copies"] = out, [flat.clone() for flat in out]
        return "lost", ended, str(error), (error.rank, error.generation)
    return [digest(flat.numpy()) for flat in out], reduced.square_sum.hex(), reduced.stats.tolist()


PHASES = {
    "statistics": (reduction, "sum_stats"),
    "statistics, native": (native_reduction, "sum_stats"),
    "agreement": (Homes, "agree"),
    "supply": (Folding, "part"),
    "fold": (Folding, "fold"),
    "meet": (exchange, "meet"),
    "collect": (exchange, "copy"),
    "all-reduce": (Group, "all_reduce"),
    "norm": (Finishing, "finish"),
}
"""What a rank calls when it enters a phase of a reduction."""


def stop_in(here, phase, after):
    """From now on this process stops as it enters ``phase`` for the ``after``-th time."""
    where, name = PHASES[phase]
    original, calls = getattr(where, name), []

    def stopping(*arguments, **more):
        calls.append(None)
        if len(calls) == after:
            setattr(where, name, original)
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(*arguments, **more)

    setattr(where, name, stopping)


def step_here(here, case, carried, node, kind):
    """One reduction and its vote; returns its answer, or how and when one of the two failed."""
    answer = reduce_here(here, case, carried, node=node, kind=kind)
    if answer[0] == "lost":
        return answer
    try:
        vote(here.group)
    except PeerLost as error:
        return "lost", time.monotonic(), str(error), (error.rank, error.generation)
    return answer


def close_here(here):
    """Close the group; returns (in time, seconds, TCP sockets left, parked)."""
    began = time.monotonic()
    in_time = here.group.close(2.0)
    took = time.monotonic() - began
    here.group = None
    return in_time, took, len(opened_since(here.kept["sockets"])), parked()


def unchanged_here(here):
    """Whether the outputs of the lost reduction are what they were when it was reported lost."""
    return all(map(torch.equal, here.kept.pop("lost_out"), here.kept.pop("copies")))


def own_page(here):
    """Return this process's liveness page; its descriptor is in ``here.kept["page"]`` for the test."""
    if "page" not in here.kept:
        here.kept["page"] = Page.create()
        here.kept["page"].hold()
    return here.kept["page"]


def page_here(here):
    return os.getpid(), own_page(here).fd


def stop_in_rendezvous(here, rank, size, generation, after):
    here.stop_after_setting = after
    try:
        here.build(generation, rank, size, timeout_s=1.0)
    except PeerLost as error:
        return str(error)
    return "built"


def build_beside_a_stopped_one(here, rank, size, generation):
    """Build while somebody stops; a group that comes about fails in its first reduction instead."""
    here.tell("entered")
    try:
        here.build(generation, rank, size, timeout_s=10.0)
        here.tell("built")
        reduced = vote_quietly(here)
        return reduced, time.monotonic()
    except PeerLost as error:
        here.tell("unbuilt")
        return str(error), time.monotonic(), parked()


def vote_until_lost(here, rank, size, generation):
    """Vote without a pause until the group is lost; returns how long the last vote took to fail."""
    if here.group is not None:
        here.group.close(2.0)
    here.build(generation, rank, size)
    here.tell("built")
    while True:
        began = time.monotonic()
        try:
            vote(here.group)
        except PeerLost:
            return time.monotonic() - began


def vote_quietly(here):
    try:
        vote(here.group)
    except PeerLost as error:
        here.group.close(2.0)
        return str(error)
    return "voted"


def build_and_vote(here, rank, size, generation):
    """Return how the group was lost: while it was built, or in its first operation."""
    try:
        here.build(generation, rank, size, page=own_page(here))
    except PeerLost as error:
        return str(error)
    return vote_quietly(here)
