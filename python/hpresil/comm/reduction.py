"""The canonical reduction: a sum over the group with the same bits at every world size.

The problem: an all-reduce adds in an order that depends on the number of ranks. The design: ranks exchange
nodes of the canonical tree over slots (`elastic.slots`), and the rest of the tree is folded by the owner of
each part, in the tree's order:

1. every owner gets its part of each node,
2. it folds the part to the root, divides it by the total weight, takes the sums of squares of its blocks, and
   everyone gets the result.

How the parts travel is `exchange`, and makes no difference to the bits: ranks that can read each other's
memory do, others send. Every wait has a deadline or ends by an interruption, and nothing writes to a buffer
after a call has ended.

Not guaranteed: the payload bits of a NaN. Not chosen: the backend's all-reduce, whose order is its own;
those who do not need equal bits have it in `native_reduction`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.arithmetic import BLOCK, add, plain_arithmetic, square_sums, tree_sum, vector
from hpresil.comm.exchange import Exchange
from hpresil.comm.folding import Finishing
from hpresil.comm.group import Group
from hpresil.comm.homes import Homes
from hpresil.comm.schedule import schedule
from hpresil.comm.small_messages import STATS, gather
from hpresil.elastic.slots import Node, cover

CHUNK_BLOCKS = 64  # 4 MiB of fp32


class Reduced(NamedTuple):
    """What a reduction returns besides the sums in ``out``.

    Attributes:
        square_sum: Sum of squares of the divided gradient over the first ``norm_blocks`` blocks of all flat
            tensors, over a tree of blocks: the same bits at every world size.
        stats: The statistics summed over ranks, 1-D float64.
        arrived_bytes: What reached this rank through the group's connections, small messages apart.
        read_bytes: What it read in the memory of other ranks.
    """

    square_sum: float
    stats: torch.Tensor
    arrived_bytes: int = 0
    read_bytes: int = 0


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
    """Sum the slot gradients of all ranks into ``out``; waits without the GIL, one thread at a time.

    All ranks call it with the same ``carried``, ``slots``, ``norm_blocks`` and sizes. It may be repeated in
    another group after PeerLost: ``nodes`` are never written, ``out`` is then undefined.

    Args:
        group: The group of this generation.
        nodes: For each node of ``cover(slots, carried[rank])``, its flat tensors, like ``out``.
        out: Flat tensors for the result: 1-D, contiguous, float32 or float64, sizes a multiple of BLOCK.
        carried: By rank, the slots it carries in this step.
        slots: Number of slots of the job.
        stats: 1-D float64, of one length on all ranks; exact if each entry is non-zero on one rank only.
        norm_blocks: For each flat tensor, the leading blocks that are divided and count in the norm.
        scale_of: Called once with the summed statistics; the sums are divided by what it returns.

    Raises:
        PeerLost: A peer died or hung, or the group was interrupted.
        ValueError: The arguments contradict each other.
    """
    contributed = contributions(slots, tuple(tuple(own) for own in carried))
    check_arguments(group, contributed, nodes, out, norm_blocks)
    deadline = Deadline(group.operation_timeout_s, "the exchange of gradients")
    finishing, homes = Finishing(norm_blocks), Homes(group, contributed, nodes, out)
    exchange: Exchange | None = None
    try:
        with plain_arithmetic():
            summed, names = sum_stats(group, stats, homes.names(), deadline)
            if scale_of is not None:
                finishing.divisor = scale_of(summed)
            plan = schedule(
                slots,
                tuple(tuple(own) for own in carried),
                tuple(flat.numel() // BLOCK for flat in out),
                CHUNK_BLOCKS,
                homes.agree(names, deadline),
            )
            exchange = Exchange(group, plan, homes, out, finishing)
            exchange.run(deadline)
            moved = (exchange.arrived_bytes, exchange.read_bytes)
            return Reduced(tree_sum(finishing.squares), summed, *moved)
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


def sum_stats(
    group: Group, stats: torch.Tensor, more: torch.Tensor, deadline: Deadline
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of all ranks' ``stats``, added in rank order, and the rows of ``more``, one a rank.

    ``stats`` and ``more`` are 1-D float64, of one length on all ranks; so is the sum.

    Raises:
        PeerLost: A peer died or hung, or the group was interrupted.
    """
    rows = gather(group, torch.cat([stats, more]), STATS, deadline)
    total = rows[0, : len(stats)].clone()
    for row in rows[1:, : len(stats)]:
        add(vector(total), vector(total), vector(row))
    return total, rows[:, len(stats) :]


@lru_cache(maxsize=8)
def contributions(slots: int, carried: tuple[tuple[int, ...], ...]) -> list[list[Node]]:
    """Return by rank the tree nodes it contributes, from the slots it carries. Any thread."""
    return [cover(slots, own) for own in carried]


def check_arguments(
    group: Group,
    contributed: Sequence[Sequence[Node]],
    nodes: dict[Node, list[torch.Tensor]],
    out: list[torch.Tensor],
    norm_blocks: Sequence[int],
) -> None:
    """Raise ValueError if what a reduction was given contradicts itself; see `reduce`."""
    if len(contributed) != group.size:
        raise ValueError(f"slots of {len(contributed)} ranks for a group of {group.size}")
    if set(nodes) != set(contributed[group.rank]):
        raise ValueError(
            f"rank {group.rank} contributes {sorted(contributed[group.rank])}, got {sorted(nodes)}"
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
