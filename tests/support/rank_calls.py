"""What the tests of process groups have their ranks do; runs in the processes of a `RankPool`.

The first argument of each is the process's `Here`; arguments and results travel through a pipe.
"""

import os
import time

import torch

from hpresil.base.errors import PeerLost
from hpresil.comm import reduction, segments
from hpresil.comm.exchange import broadcast_bytes, vote
from hpresil.comm.group import parked
from hpresil.comm.reduction import reduce
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


def reduce_case(here, case, carried, rank, generation, chunk_blocks=None, flush=False, readable=False):
    """Runs in a rank's process: one reduction, in a group that is built when its generation is new.

    Returns its answer and whether it was sent through sockets.
    """
    if here.group is None or here.group.generation != generation:
        if here.group is not None:
            assert here.group.close(2.0)
        here.build(generation, rank, len(carried))
    nodes, out = contributed(case, carried[rank], readable), buffers(case, readable)
    before = [digest(flat.numpy()) for own in nodes.values() for flat in own]
    sent = []
    streaming = reduction.Streaming
    reduction.Streaming = lambda *arguments: sent.append(True) or streaming(*arguments)
    reduction.CHUNK_BLOCKS = chunk_blocks or 64
    torch.set_flush_denormal(flush)
    try:
        reduced = reduce(
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
        reduction.Streaming = streaming
    assert still == flush, "the thread's flush-denormal mode changed"
    assert before == [digest(flat.numpy()) for own in nodes.values() for flat in own], "a node was written"
    answer = [digest(flat.numpy()) for flat in out], reduced.square_sum.hex(), reduced.stats.tolist()
    return answer, bool(sent)


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


def reduce_here(here, case, carried):
    """One reduction; returns its answer, or how it failed and at what monotonic time."""
    rank = here.group.rank
    out = [
        torch.zeros(case.blocks[0] * BLOCK),
        torch.zeros(case.blocks[1] * BLOCK, dtype=torch.float64),
    ]
    stats = torch.from_numpy(case.stats(rank, len(carried)))
    nodes = tensors(case, carried[rank])
    here.tell("entered")
    try:
        reduced = reduce(
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
