"""Communicators over NCCL: the native core's, with ids that come through the generation's store.

Rank 0 of each has its ids from `ids` (the agent's `IdMint`) and publishes them; the others look all of theirs
up with one request. Then all are begun in one group of NCCL, without blocking, and looked for until the
deadline.

Stream rule: everything goes into torch's current stream of the device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from hpresil.base.deadline import Deadline
from hpresil.base.errors import NativeError, PeerLost
from hpresil.comm.communicators import CLOSE_S, Operation, Reason, Wanted
from hpresil.native import finish_init as finish_native

ABORT_S = 5.0
ID_BYTES = 128


class NativeEnd(Protocol):
    """What is used of `hpresil.native.NcclCommunicator`."""

    @property
    def reason(self) -> str:
        """Why it was given up."""

    def run(
        self,
        groups: Sequence[Sequence[tuple[str, int, int, int, int]]],
        stream: int,
        what: str,
        seconds: float,
        wait: bool = True,
    ) -> None:
        """Run groups of (operation, source, destination, bytes, peer); addresses are 0 for none."""

    def abort(self, reason: str, seconds: float) -> bool:
        """Give it up."""

    def close(self, seconds: float) -> bool:
        """Free it."""


class NativeLibrary(Protocol):
    """What is used of `hpresil.native.Nccl`."""

    def begin(
        self, specs: Sequence[tuple[str, int, int, int, Sequence[bytes]]], device: int
    ) -> Sequence[NativeEnd]:
        """Begin all (name, generation, rank, ranks, ids) on a device."""


class NcclCommunicator:
    """One rank's end: a `communicators.Communicator`.

    Operations from one thread at a time, `abort` from any.
    """

    def __init__(self, wanted: Wanted, generation: int, native: NativeEnd, device: torch.device) -> None:
        self.name, self.generation = wanted.name, generation
        self.rank, self.size = wanted.rank, wanted.size
        self.device = device
        self.native = native

    @property
    def reason(self) -> str:
        """Why it was given up; "" while it was not."""
        return self.native.reason

    def supports(self, operation: str) -> bool:
        """Return whether `run` takes this operation: all."""
        return True

    def run(self, groups: Sequence[Sequence[Operation]], what: str, deadline_s: float) -> None:
        """See `communicators.Communicator.run`."""
        self._run(groups, what, deadline_s, wait=True)

    def enqueue(self, groups: Sequence[Sequence[Operation]], what: str, deadline_s: float) -> None:
        """As `run`, without waiting for the device: behind other work of the stream, or in a graph.

        Whether it succeeded nobody is told: an aborted operation ends like one that did.
        """
        self._run(groups, what, deadline_s, wait=False)

    def _run(
        self, groups: Sequence[Sequence[Operation]], what: str, deadline_s: float, *, wait: bool
    ) -> None:
        calls = [[_call(operation) for operation in group] for group in groups]
        try:
            self.native.run(calls, _stream(self.device), what, deadline_s, wait)
        except NativeError as error:
            raise PeerLost(str(error), rank=self.rank, generation=self.generation) from error

    def abort(self, reason: str) -> bool:
        """See `communicators.Communicator.abort`."""
        return self.native.abort(reason, ABORT_S)

    def close(self, deadline_s: float = CLOSE_S) -> bool:
        """See `communicators.Communicator.close`."""
        return self.native.close(deadline_s)


class NcclCommunicators:
    """Builds them in bulk.

    Args:
        nccl: `hpresil.native.Nccl.open()`.
        device: The device of this worker.
        ids: (generation, name, roots) to as many ids, of 128 bytes each; called for communicators this worker
            has rank 0 of.
        set: Publishes a value under a key of a generation's name space.
        get: Returns the values of keys when all are there, or raises after the given seconds.
        finish: Waits for what was begun; the native core's, unless a test brings its own.
    """

    def __init__(
        self,
        nccl: NativeLibrary,
        device: torch.device,
        *,
        ids: Callable[[int, str, int], Sequence[bytes]],
        set: Callable[[str, bytes], None],
        get: Callable[[list[str], float], list[bytes]],
        finish: Callable[[Sequence[NativeEnd], float], None] = finish_native,  # type: ignore[assignment]
    ) -> None:
        self._nccl, self._device, self._ids = nccl, device, ids
        self._set, self._get, self._finish = set, get, finish
        self._lock = threading.Lock()
        self._pending: Sequence[NativeEnd] = ()
        self._reason = Reason()

    def init_many(
        self, generation: int, wanted: Sequence[Wanted], deadline_s: float
    ) -> list[NcclCommunicator]:
        """See `communicators.Communicators.init_many`."""
        deadline = Deadline(
            deadline_s, f"initialising {len(wanted)} communicators of generation {generation}"
        )
        with self._lock:
            self._reason = Reason()
        specs = [
            (each.name, generation, each.rank, each.size, ids)
            for each, ids in zip(wanted, self._exchange(generation, wanted, deadline), strict=True)
        ]
        try:
            pending = self._nccl.begin(specs, -1 if self._device.index is None else self._device.index)
            with self._lock:
                self._pending, given_up = pending, self._reason.text
            for each in pending if given_up else ():
                each.abort(given_up, ABORT_S)
            self._finish(pending, deadline.remaining())
        except NativeError as error:
            first = wanted[0] if wanted else Wanted("", 0, 0)
            raise PeerLost(str(error), rank=first.rank, generation=generation) from error
        finally:
            with self._lock:
                self._pending = ()
        return [
            NcclCommunicator(each, generation, native, self._device)
            for each, native in zip(wanted, pending, strict=True)
        ]

    def abort(self, reason: str) -> None:
        """Give up what is being built. Any thread, any time."""
        with self._lock:
            self._reason.say(reason)
            pending = self._pending
        for each in pending:
            each.abort(reason, ABORT_S)

    def _exchange(self, generation: int, wanted: Sequence[Wanted], deadline: Deadline) -> list[list[bytes]]:
        """Return the ids of each: made here for those of rank 0, else looked up."""
        found: dict[str, bytes] = {}
        for each in wanted:
            if each.rank == 0:
                joined = b"".join(self._ids(generation, each.name, each.roots))
                found[each.name] = joined
                if each.size > 1:
                    self._set(_key(each.name), joined)
        missing = [each.name for each in wanted if each.name not in found]
        if missing:
            values = self._get([_key(name) for name in missing], deadline.remaining())
            found.update(zip(missing, values, strict=True))
        return [
            [found[each.name][at : at + ID_BYTES] for at in range(0, len(found[each.name]), ID_BYTES)]
            for each in wanted
        ]


def _key(name: str) -> str:
    return f"communicators/{name}/ids"


def _call(operation: Operation) -> tuple[str, int, int, int, int]:
    source, destination = operation.source, operation.destination
    # What one rank contributes to an all-gather, and gets of a reduce-scatter, is the smaller of the two.
    sizes = [tensor.nbytes for tensor in (source, destination) if tensor is not None]
    return (
        operation.operation,
        0 if source is None else source.data_ptr(),
        0 if destination is None else destination.data_ptr(),
        min(sizes),
        operation.peer,
    )


def _stream(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0
