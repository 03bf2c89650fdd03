"""The canonical reduction: a sum over the group with the same bits at every world size.

The problem: an all-reduce adds in an order that depends on the number of ranks. The design: ranks
exchange nodes of the canonical tree over slots (`elastic.slots`), and the rest of the tree is
folded by the owner of each part, in the tree's order:

1. every rank sends, for each of its nodes, each owner's part to that owner;
2. the owner folds its part to the root, divides it by the total weight, takes the sums of squares
   of its blocks, and sends the part to everyone.

That is what a ring all-reduce moves if every rank holds one node, and more for ranks that hold
several. Parts are cut into chunks: chunk k is folded while chunk k+1 arrives, and a fixed number of
receive buffers circulates, which also keeps them in the cache. Everything is point to point, so a
deadline or an interruption ends each wait, and nothing writes to a buffer after a call has ended.

Not guaranteed: the payload bits of a NaN. Not chosen: gloo's collectives, whose order is its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hpresil.base.deadline import Deadline
from hpresil.comm import staging
from hpresil.comm.arithmetic import BLOCK, add, plain_arithmetic, square_sums, tree_sum, vector
from hpresil.comm.exchange import SQUARES, STATS, broadcast_bytes, finish, others, start_gather, vote
from hpresil.comm.folding import Folding
from hpresil.comm.group import Group
from hpresil.comm.schedule import Chunk, Schedule, owned, schedule
from hpresil.elastic.slots import Node

__all__ = ["BLOCK", "Reduced", "broadcast_bytes", "reduce", "square_sum", "vote"]
CHUNK_BLOCKS = 64  # 4 MiB of fp32
WINDOW = 3  # chunks that may be on their way to one owner


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
    exchange = _Exchange(group, plan, nodes, out, norm_blocks)
    try:
        with plain_arithmetic():
            return exchange.run(stats, scale_of)
    except BaseException:
        group.interrupt()  # what was sent already would meet the receives of a later call
        raise
    finally:
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


class _Exchange:
    """One reduction on one rank."""

    def __init__(
        self,
        group: Group,
        plan: Schedule,
        nodes: dict[Node, list[torch.Tensor]],
        out: list[torch.Tensor],
        norm_blocks: Sequence[int],
    ) -> None:
        self._group, self._plan, self._nodes, self._out = group, plan, nodes, out
        self._folding = Folding(plan, nodes, out, norm_blocks)
        self._deadline = Deadline(group.operation_timeout_s, "the exchange of gradients")
        self._works: list[Any] = []
        self._arriving: deque[tuple[Chunk, dict[Node, torch.Tensor], list[Any]]] = deque()
        self._buffers: list[torch.Tensor] = []
        self._free: dict[torch.dtype, list[torch.Tensor]] = {}

    def run(self, stats: torch.Tensor, scale_of: Callable[[torch.Tensor], float] | None) -> Reduced:
        """Do all of it."""
        own = self._plan.chunks[self._group.rank]
        rows, works = start_gather(self._group, stats, STATS)
        for chunk in own[:WINDOW]:
            self._expect(chunk)
        self._send_parts()
        self._expect_results()
        finish(self._group, works, self._deadline)
        summed = _add_rows(rows)
        if scale_of is not None:
            self._folding.divisor = scale_of(summed)
        for place, chunk in enumerate(own):
            self._fold(chunk)
            for peer in others(self._group):
                part = self._out[chunk.flat][chunk.elements]
                self._works.append(self._group.send(part, peer, self._plan.result_tag(chunk)))
            if place + WINDOW < len(own):
                self._expect(own[place + WINDOW])
        self._exchange_squares()
        finish(self._group, self._works, self._deadline)
        return Reduced(tree_sum(self._folding.squares), summed)

    def release(self) -> None:
        """Give the buffers back; first destroy the works that could still write to them."""
        self._works.clear()
        for _, _, works in self._arriving:
            works.clear()
        self._arriving.clear()
        for buffer in self._buffers:
            staging.give(buffer)
        self._buffers.clear()

    def _expect(self, chunk: Chunk) -> None:
        """Start to receive what others contribute to a chunk of ours."""
        parts: dict[Node, torch.Tensor] = {}
        works: list[Any] = []
        self._arriving.append((chunk, parts, works))  # first, so that `release` knows every work
        for peer in others(self._group):
            for node in self._plan.nodes[peer]:
                parts[node] = self._buffer(chunk)
                place = parts[node][: chunk.blocks * BLOCK]
                works.append(self._group.receive(place, peer, self._plan.part_tag(chunk, node)))

    def _send_parts(self) -> None:
        """Start to send our nodes, every owner's first chunk first."""
        peers = others(self._group)
        longest = max((len(self._plan.chunks[peer]) for peer in peers), default=0)
        for place in range(longest):
            for peer in peers:
                for chunk in self._plan.chunks[peer][place : place + 1]:
                    for node in self._plan.nodes[self._group.rank]:
                        part = self._nodes[node][chunk.flat][chunk.elements]
                        self._works.append(self._group.send(part, peer, self._plan.part_tag(chunk, node)))

    def _expect_results(self) -> None:
        """Start to receive the folded chunks of all other owners where they belong."""
        for peer in others(self._group):
            for chunk in self._plan.chunks[peer]:
                part = self._out[chunk.flat][chunk.elements]
                self._works.append(self._group.receive(part, peer, self._plan.result_tag(chunk)))

    def _fold(self, chunk: Chunk) -> None:
        """Wait for what others contribute to a chunk, and fold it."""
        arrived, parts, works = self._arriving.popleft()
        assert arrived == chunk
        finish(self._group, works, self._deadline)
        self._folding.fold(chunk, parts)
        self._free.setdefault(self._out[chunk.flat].dtype, []).extend(parts.values())

    def _exchange_squares(self) -> None:
        """Start to exchange the sums of squares; they land in block order."""
        squares = torch.from_numpy(self._folding.squares)
        for flat, like in enumerate(self._out):
            shares = [
                owned(like.numel() // BLOCK, rank, self._group.size) for rank in range(self._group.size)
            ]
            places = [squares[self._folding.places(flat, *share)] for share in shares]
            for peer in others(self._group):
                if len(places[peer]):
                    self._works.append(self._group.receive(places[peer], peer, SQUARES))
                if len(places[self._group.rank]):
                    self._works.append(self._group.send(places[self._group.rank], peer, SQUARES))

    def _buffer(self, chunk: Chunk) -> torch.Tensor:
        like = self._out[chunk.flat]
        free = self._free.get(like.dtype)
        if free:
            return free.pop()
        buffer = staging.take(self._plan.chunk_blocks * BLOCK, like.dtype, like.device)
        self._buffers.append(buffer)
        return buffer


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
