"""The canonical reduction: a sum over the group with the same bits at every world size.

The problem: an all-reduce adds in an order that depends on the number of ranks. The design: ranks
exchange nodes of the canonical tree over slots (`elastic.slots`), and the rest of the tree is
folded by the owner of each part, in the tree's order:

1. every owner gets its part of each node of every rank,
2. it folds the part to the root, divides it by the total weight, takes the sums of squares of its
   blocks, and everyone gets the result.

That is what a ring all-reduce moves if every rank holds one node, and more for ranks that hold
several. How a part travels is decided anew for each group, by all ranks alike: ranks that can read
each other's memory do (`reading`), others send it (`streaming`). The bits are the same.
Every wait has a deadline or ends by an interruption, and nothing writes to a buffer after a call has
ended.

Not guaranteed: the payload bits of a NaN. Not chosen: gloo's collectives, whose order is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.arithmetic import BLOCK, add, plain_arithmetic, square_sums, tree_sum, vector
from hpresil.comm.exchange import STATS, broadcast_bytes, gather, vote
from hpresil.comm.folding import Folding
from hpresil.comm.group import Group
from hpresil.comm.reading import Reading, Segments
from hpresil.comm.schedule import Schedule, schedule
from hpresil.comm.streaming import Streaming
from hpresil.elastic.slots import Node

__all__ = ["BLOCK", "Reduced", "broadcast_bytes", "reduce", "square_sum", "vote"]
CHUNK_BLOCKS = 64  # 4 MiB of fp32


class Reduced(NamedTuple):
    """What a reduction returns besides the sums in ``out``.

    Attributes:
        square_sum: Sum of squares of the divided gradient over the first ``norm_blocks`` blocks of
            all flat tensors, over a tree of blocks: the same bits at every world size.
        stats: The statistics summed over ranks.
    """

    square_sum: float
    stats: torch.Tensor


def reduce(
    group: Group,
    *,
    nodes: dict[Node, list[torch.Tensor]],
    out: list[torch.Tensor],
    carried: Sequence[Sequence[int]],
    slots: int,
    stats: torch.Tensor,
    norm_blocks: Sequence[int],
    scale_of: Callable[[torch.Tensor], float] | None = None,
) -> Reduced:
    """Sum the slot gradients of all ranks into ``out``; blocks without the GIL.

    All ranks call it with the same ``carried``, ``slots``, ``norm_blocks`` and sizes. It may be
    repeated in another group after PeerLost: ``nodes`` are never written, ``out`` is then undefined.

    Args:
        group: The group of this generation.
        nodes: For each node of ``cover(slots, carried[rank])``, its flat tensors.
        out: Flat tensors for the result: 1-D, contiguous, float32 or float64, sizes a multiple of BLOCK.
        carried: By rank, the slots it carries in this step.
        slots: Number of slots of the job.
        stats: 1-D float64; exact if each entry is non-zero on one rank only.
        norm_blocks: For each flat tensor, the leading blocks that are divided and count in the norm.
        scale_of: Called once with the summed statistics; the sums are divided by what it returns.

    Raises:
        PeerLost: A peer died or hung, or the group was interrupted.
        ValueError: The arguments contradict each other.
    """
    plan = schedule(
        slots,
        tuple(tuple(own) for own in carried),
        tuple(flat.numel() // BLOCK for flat in out),
        CHUNK_BLOCKS,
    )
    _check(group, plan, nodes, out, norm_blocks)
    deadline = Deadline(group.operation_timeout_s, "the exchange of gradients")
    folding = Folding(plan, nodes, out, norm_blocks)
    segments = Segments(group, plan, nodes, out)
    exchange: Reading | Streaming | None = None
    try:
        with plain_arithmetic():
            rows = gather(group, torch.cat([stats, segments.names()]), STATS, deadline)
            summed = _add_rows(rows[:, : len(stats)])
            if scale_of is not None:
                folding.divisor = scale_of(summed)
            if segments.open(rows[:, len(stats) :], deadline):
                exchange = Reading(group, plan, folding, segments, out)
            else:
                exchange = Streaming(group, plan, folding, nodes, out)
            exchange.run(deadline)
            return Reduced(tree_sum(folding.squares), summed)
    except BaseException:
        group.interrupt()  # what was sent already would meet the receives of a later call
        raise
    finally:
        if exchange is not None:
            exchange.release()


def square_sum(flats: Sequence[torch.Tensor], norm_blocks: Sequence[int]) -> float:
    """Return the sum of squares of the leading blocks of each tensor, as `reduce` computes it.

    Args:
        flats: 1-D, contiguous, float32 or float64, of whole blocks.
        norm_blocks: For each tensor, the leading blocks that count.
    """
    squares = np.zeros(sum(norm_blocks))
    with plain_arithmetic():
        start = 0
        for flat, counted in zip(flats, norm_blocks, strict=True):
            if counted:
                square_sums(vector(flat[: counted * BLOCK]), squares[start : start + counted])
            start += counted
        return tree_sum(squares)


def _add_rows(rows: torch.Tensor) -> torch.Tensor:
    total = rows[0].clone()
    for row in rows[1:]:
        add(vector(total), vector(total), vector(row))
    return total


def _check(
    group: Group,
    plan: Schedule,
    nodes: dict[Node, list[torch.Tensor]],
    out: list[torch.Tensor],
    norm_blocks: Sequence[int],
) -> None:
    if len(plan.nodes) != group.size:
        raise ValueError(f"slots of {len(plan.nodes)} ranks for a group of {group.size}")
    if set(nodes) != set(plan.nodes[group.rank]):
        raise ValueError(
            f"rank {group.rank} contributes {sorted(plan.nodes[group.rank])}, got {sorted(nodes)}"
        )
    if len(norm_blocks) != len(out):
        raise ValueError(f"norm_blocks for {len(norm_blocks)} of {len(out)} flat tensors")
    for flat, counted in zip(out, norm_blocks, strict=True):
        if flat.dtype not in (torch.float32, torch.float64) or flat.dim() != 1 or flat.numel() % BLOCK:
            raise ValueError(
                f"flat tensors are 1-D float32 or float64 of whole blocks, got {flat.dtype}, {len(flat)}"
            )
        if not 0 <= counted * BLOCK <= flat.numel():
            raise ValueError(f"norm_blocks {counted} of a flat tensor of {flat.numel() // BLOCK} blocks")
    for node, own in nodes.items():
        shapes = [(flat.dtype, flat.shape, flat.is_contiguous()) for flat in own]
        if shapes != [(flat.dtype, flat.shape, True) for flat in out]:
            raise ValueError(f"the tensors of {node} are not like `out`: {shapes}")
