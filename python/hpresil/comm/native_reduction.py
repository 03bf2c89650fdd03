"""The backend's own all-reduce, for users who do not need equal bits at every world size.

Each rank adds up what it has, from the left to the right, and the backend sums that over the ranks in
whatever order it likes: gloo's ring here. So the bits depend on the number of ranks and on who carries
what. Everything else is as in `reduction`: the same arguments and result, ``nodes`` are never written, a
failure is a `PeerLost`, and every rank has the same bits, which the record checks through the norm: each
rank computes that from the whole of its own result.

A collective is not like a message: its threads may go on writing after its wait has failed.
`Group.left_behind` then says that ``out`` must not be used again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.arithmetic import BLOCK, Vector, add, copy, plain_arithmetic, tree_sum, vector
from hpresil.comm.folding import Finishing, tiles
from hpresil.comm.group import Group
from hpresil.comm.reduction import Reduced, check_arguments, contributions, sum_stats
from hpresil.elastic.slots import Node, merges


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
    """Sum the slot gradients of all ranks into ``out``; arguments, result and errors of `reduction.reduce`.

    After PeerLost ``out`` may still be written to if ``group.left_behind``.
    """
    contributed = contributions(slots, tuple(tuple(own) for own in carried))
    check_arguments(group, contributed, nodes, out, norm_blocks)
    merges(slots, [node for own in contributed for node in own])  # every slot, and none twice
    deadline = Deadline(group.operation_timeout_s, "the backend's all-reduce")
    finishing = Finishing(norm_blocks)
    try:
        with plain_arithmetic():
            summed, _ = sum_stats(group, stats, stats[:0], deadline)
            if scale_of is not None:
                finishing.divisor = scale_of(summed)
            for place, flat in enumerate(out):
                own = [vector(nodes[node][place]) for node in sorted(nodes, key=_first_slot)]
                _add_up(own, vector(flat))
            _sum_over_ranks(group, out, deadline)
            for place, flat in enumerate(out):
                for start, within in tiles(norm_blocks[place]):
                    finishing.finish(place, start, vector(flat[within]))
            return Reduced(tree_sum(finishing.squares), summed)
    except BaseException:
        group.interrupt()
        raise


def _first_slot(node: Node) -> int:
    return node.index << node.level


def _add_up(own: Sequence[Vector], result: Vector) -> None:
    """Write the sum of ``own`` into ``result``, tile by tile while one is in the cache."""
    for _, within in tiles(len(result) // BLOCK):
        if own:
            copy(result[within], own[0][within])
        else:
            result[within] = 0.0
        for values in own[1:]:
            add(result[within], result[within], values[within])


def _sum_over_ranks(group: Group, out: Sequence[torch.Tensor], deadline: Deadline) -> None:
    if group.size == 1:
        return
    works = [group.all_reduce(flat) for flat in out if flat.numel()]
    try:
        group.finish(list(works), deadline)
    except BaseException:
        group.still_writes = not all(work.is_completed() for work in works)
        raise
