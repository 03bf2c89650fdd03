"""What to run on a fresh communicator so that its connections are there before training needs them.

NCCL connects at first use: each algorithm of an all-reduce (chosen by size), each other collective, and each
pair of ranks that send to each other. So a small, a middle and a large all-reduce, one of each other
collective, and the planned sends at their real size, all in one group as they will be later. Gloo connects
when it is built; there the same plan starts its threads and faults buffers in.

Every rank computes the same plan from the same arguments, and runs its own part. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SMALL_BYTES, MIDDLE_BYTES, LARGE_BYTES = 4 << 10, 1 << 20, 64 << 20


@dataclass(frozen=True)
class Call:
    """One operation of one rank.

    Attributes:
        operation: "all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter", "send" or "receive".
        nbytes: Of one rank's share.
        peer: The root or the other rank; -1 where there is none.
    """

    operation: str
    nbytes: int
    peer: int = -1


Batch = tuple[Call, ...]  # goes out together


@dataclass(frozen=True)
class Edge:
    """Bytes that will travel from one rank to another."""

    source: int
    destination: int
    nbytes: int


def plan(
    size: int,
    rank: int,
    edges: Sequence[Edge] = (),
    sums: Sequence[int] = (SMALL_BYTES, MIDDLE_BYTES, LARGE_BYTES),
) -> list[Batch]:
    """Return what ``rank`` of ``size`` runs, batch by batch.

    Args:
        size: Ranks of the communicator.
        rank: The one that asks.
        edges: The planned sends between two ranks each; the same list, in the same order, on all ranks.
        sums: The sizes of the all-reduces, in bytes; multiples of 4, since they are summed as float32.

    Raises:
        ValueError: An edge does not connect two ranks.
    """
    for edge in edges:
        if not (0 <= edge.source < size and 0 <= edge.destination < size) or edge.source == edge.destination:
            raise ValueError(f"{edge} connects no two ranks of {size}")
    batches: list[Batch] = [(Call("all_reduce", nbytes),) for nbytes in sums]
    batches += [
        (Call("broadcast", SMALL_BYTES, 0),),
        (Call("reduce", SMALL_BYTES, 0),),
        (Call("all_gather", SMALL_BYTES),),
        (Call("reduce_scatter", SMALL_BYTES),),
    ]
    own = tuple(
        Call("send", edge.nbytes, edge.destination)
        if edge.source == rank
        else Call("receive", edge.nbytes, edge.source)
        for edge in edges
        if rank in (edge.source, edge.destination)
    )
    return [*batches, own] if own else batches


def scratch_bytes(batches: Sequence[Batch], size: int) -> int:
    """Return how many bytes the source, and as many the destination, of the largest call need.

    ``size``: ranks of the communicator; a gathered destination and a scattered source hold a share for each.
    """
    shares = {"all_gather": size, "reduce_scatter": size}
    return max(
        (call.nbytes * shares.get(call.operation, 1) for batch in batches for call in batch), default=0
    )
