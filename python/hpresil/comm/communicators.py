"""Many communicators of one generation, built at once, warmed and given up: the same over NCCL and over gloo.

The problem: a view needs several communicators (data parallel, recovery, what the user's own parallelism
needs), and the time until the last of them is ready and warm is time nobody trains. The design: all are
initialised together, and it is all of them or none; whoever gives one up first says why, and everybody who
waits in it hears that reason.

`nccl_communicators` and `gloo_communicators` are the two kinds. Bytes are 1-D contiguous uint8 tensors on the
communicator's device.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from hpresil.comm.transfer_plan import Plan, part
from hpresil.comm.warming import Batch, scratch_bytes

CLOSE_S = 2.0


@dataclass(frozen=True)
class Wanted:
    """A communicator to be built.

    Attributes:
        name: Unique in its generation, and the same on all its ranks.
        rank: This process's place in it.
        size: How many ranks it has.
        roots: How many roots its members meet at (NCCL).
    """

    name: str
    rank: int
    size: int
    roots: int = 1


@dataclass(frozen=True)
class Operation:
    """One operation on bytes; sums take them as float32.

    Attributes:
        operation: "all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter", "send" or "receive".
        source: 1-D contiguous uint8 on the communicator's device; None for "receive". Of equal size on all
            ranks; of "reduce_scatter" it has the ``size`` shares of all ranks.
        destination: Likewise; None for "send". Of "all_gather" it has the shares of all ranks. Gloo's
            "all_reduce" sums what is in it, in place: there it has to be the source.
        peer: The root or the other rank, -1 for none.
    """

    operation: str
    source: torch.Tensor | None
    destination: torch.Tensor | None
    peer: int = -1


class Communicator(Protocol):
    """One rank's end of a communicator. Operations from one thread at a time, `abort` from any."""

    name: str
    generation: int
    rank: int
    size: int

    @property
    def reason(self) -> str:
        """Why it was given up; "" while it was not."""

    @property
    def device(self) -> torch.device:
        """Where its bytes lie."""

    def supports(self, operation: str) -> bool:
        """Return whether `run` takes this operation."""

    def run(self, groups: Sequence[Sequence[Operation]], what: str, deadline_s: float) -> None:
        """Run the groups one after the other, what is in one together; returns when all is done.

        Blocks without the GIL. On a device it goes into torch's current stream of the calling thread.

        Args:
            groups: The same operations, in the same order, as on the other ranks that take part.
            what: Named in errors.
            deadline_s: Seconds for all of it.

        Raises:
            PeerLost: A peer is lost, it was given up, or the deadline passed; what was written is undefined.
            ValueError: An operation that `supports` says no to.
        """

    def abort(self, reason: str) -> bool:
        """Give it up, from any thread: all that is pending fails soon. The first reason stays."""

    def close(self, deadline_s: float = CLOSE_S) -> bool:
        """Free it within ``deadline_s`` seconds; False if something of it was left behind."""


class Communicators(Protocol):
    """Builds them, one `init_many` at a time."""

    def init_many(
        self, generation: int, wanted: Sequence[Wanted], deadline_s: float
    ) -> Sequence[Communicator]:
        """Build all of ``wanted`` at once; all ranks of the generation call it with the same names.

        Blocks without the GIL, for ``deadline_s`` seconds and the time it takes to give up, at most.

        Returns:
            The communicators, in the order of ``wanted``.

        Raises:
            PeerLost: One was not ready by the deadline, failed or was given up; then none is left.
        """

    def abort(self, reason: str) -> None:
        """Give up what is being built. Any thread, any time."""


class Reason:
    """Why something was given up: the first one that is said. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""

    @property
    def text(self) -> str:
        """The reason; "" while there is none."""
        return self._text

    def say(self, text: str) -> bool:
        """Say it; returns whether it was the first."""
        with self._lock:
            first = not self._text
            if first:
                self._text = text or "no reason was given"
            return first


def warm(communicator: Communicator, batches: Sequence[Batch], deadline_s: float) -> None:
    """Run a plan of `warming.plan` on scratch memory: twice `warming.scratch_bytes`, freed afterwards.

    Operations that the communicator's kind does not have are left out. All ranks call it, each with its own
    part of the plan; threads and streams as in `Communicator.run`, ``deadline_s`` in seconds.

    Raises:
        PeerLost: As `Communicator.run`.
    """
    nbytes = scratch_bytes(batches, communicator.size)
    scratch = torch.zeros((2, nbytes), dtype=torch.uint8, device=communicator.device)
    groups = []
    for batch in batches:
        calls = [call for call in batch if communicator.supports(call.operation)]
        if calls:
            groups.append(
                [_on(scratch, call.operation, call.nbytes, call.peer, communicator) for call in calls]
            )
    communicator.run(groups, "pre-warming", deadline_s)


def transfer(communicator: Communicator, plan: Plan, state: torch.Tensor, deadline_s: float) -> None:
    """Run a plan of `transfer_plan.plan` on ``state``. All ranks call it with the same plan.

    Args:
        communicator: Whose ranks the plan speaks of; threads and streams as in `Communicator.run`.
        plan: What is copied from where to where.
        state: 1-D contiguous uint8 on the communicator's device: the whole range of bytes, at the same place
            on each rank, also where this rank holds or needs only parts of it.
        deadline_s: Seconds for all of it.

    Raises:
        PeerLost: As `Communicator.run`; what this rank was to receive is then undefined.
    """
    if plan.root >= 0:
        whole = state[: plan.nbytes]
        communicator.run([[Operation("broadcast", whole, whole, plan.root)]], "the transfer", deadline_s)
        return
    rank, groups = communicator.rank, []
    for copies in part(plan.rounds, rank):
        group = []
        for copy in copies:
            piece = state[copy.begin : copy.end]
            sends = copy.source == rank
            group.append(
                Operation("send", piece, None, copy.destination)
                if sends
                else Operation("receive", None, piece, copy.source)
            )
        if group:
            groups.append(group)
    communicator.run(groups, "the transfer", deadline_s)


def _on(
    scratch: torch.Tensor, operation: str, nbytes: int, peer: int, communicator: Communicator
) -> Operation:
    source = nbytes * (communicator.size if operation == "reduce_scatter" else 1)
    destination = nbytes * (communicator.size if operation == "all_gather" else 1)
    return Operation(
        operation,
        None if operation == "receive" else scratch[0, :source],
        None if operation == "send" else scratch[1, :destination],
        peer,
    )
