"""Small messages between ranks: point to point, so that each wait has a deadline of its own.

Gloo's collectives run in threads of its own, with the timeout of the group's construction, and keep writing
to their buffers after the caller has given up; sends and receives do neither.

Tags pair sends with receives between two ranks. Those of a reduction's parts count from 0; the small messages
have fixed ones above, because the order of calls pairs what has the same tag.

Thread rule: that of the group, one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hpresil.base.deadline import Deadline
from hpresil.comm.arithmetic import BLOCK
from hpresil.comm.folding import Finishing
from hpresil.comm.group import Group
from hpresil.comm.schedule import owned

SMALL_TAGS = 1 << 30
STATS, SQUARES, VOTE, BYTES, READABLE, FOLDED = range(SMALL_TAGS, SMALL_TAGS + 6)


def vote(group: Group, wishes: int = 0) -> int:
    """Return once every rank has called it: the bitwise or of all ``wishes`` (63 bits).

    Raises:
        PeerLost: Somebody did not vote.
    """
    ballot = torch.tensor([wishes], dtype=torch.int64)
    everyone = gather(group, ballot, VOTE, Deadline(group.operation_timeout_s, "the vote"))
    result = 0
    for row in everyone[:, 0].tolist():
        result |= row
    return result


def gather(group: Group, values: torch.Tensor, tag: int, deadline: Deadline) -> torch.Tensor:
    """Return the ``values`` (1-D, small, of one length and dtype everywhere) of all ranks as rows, by rank.

    The rows are in host memory.

    Raises:
        PeerLost: Somebody did not send them by the deadline, or the group was interrupted.
    """
    rows = torch.empty((group.size, values.numel()), dtype=values.dtype)
    rows[group.rank] = values
    works = [group.receive(rows[peer], peer, tag) for peer in others(group)]
    works += [group.send(rows[group.rank], peer, tag) for peer in others(group)]
    group.finish(works, deadline)
    return rows


def meet(group: Group, peers: Sequence[int], tag: int, deadline: Deadline) -> None:
    """Return once all ``peers``, which name each other, have come here too.

    Raises:
        PeerLost: Somebody did not come by the deadline, or the group was interrupted.
    """
    signs = torch.ones(1 + len(peers))
    works = [group.receive(signs[1 + place : 2 + place], peer, tag) for place, peer in enumerate(peers)]
    works += [group.send(signs[:1], peer, tag) for peer in peers]
    group.finish(works, deadline)


def start_squares(group: Group, finishing: Finishing, out: list[torch.Tensor]) -> list[Any]:
    """Start to exchange the sums of squares of what each rank owns of ``out``; return the works.

    They land in ``finishing.squares``, in block order, and may not be read before the works are finished.
    """
    squares, works = torch.from_numpy(finishing.squares), []
    for flat, like in enumerate(out):
        shares = [owned(like.numel() // BLOCK, rank, group.size) for rank in range(group.size)]
        places = [squares[finishing.places(flat, *share)] for share in shares]
        for peer in others(group):
            if len(places[peer]):
                works.append(group.receive(places[peer], peer, SQUARES))
            if len(places[group.rank]):
                works.append(group.send(places[group.rank], peer, SQUARES))
    return works


def broadcast_bytes(group: Group, values: torch.Tensor, root: int) -> None:
    """Copy the bytes of ``values`` (uint8, 1-D, contiguous, equal sizes) from ``root`` to every rank.

    Raises:
        PeerLost: A peer died or hung, or the group was interrupted; the contents are then undefined.
        ValueError: ``values`` are not such bytes.
    """
    if values.dtype != torch.uint8 or values.dim() != 1 or not values.is_contiguous():
        raise ValueError(f"bytes are 1-D contiguous uint8, got {values.dtype} of shape {tuple(values.shape)}")
    deadline = Deadline(group.operation_timeout_s, f"broadcast of {values.numel()} bytes from rank {root}")
    if group.size == 1 or values.numel() == 0:
        return
    if group.rank == root:
        works = [group.send(values, peer, BYTES) for peer in others(group)]
    else:
        works = [group.receive(values, root, BYTES)]
    group.finish(works, deadline)


def others(group: Group) -> list[int]:
    """Return the peers, each rank beginning with the one after itself."""
    return [(group.rank + i) % group.size for i in range(1, group.size)]
