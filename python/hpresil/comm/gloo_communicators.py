"""Communicators over gloo, for machines without NVIDIA devices: many `Group`s, built in parallel.

Each is a `Group` in a name space of its own inside of its generation's store, built in a thread of its own:
nearly all of a construction is waiting for others. Gloo connects when it is built, so pre-warming only starts
threads and faults buffers in.

Not offered: collectives that hpresil never runs over gloo (reduce, all_gather, reduce_scatter). The liveness
page knows the sockets of one group only, so these are interrupted by `abort`, not by the page.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hpresil.base.deadline import Deadline
from hpresil.base.errors import PeerLost
from hpresil.comm.communicators import CLOSE_S, Operation, Reason, Wanted
from hpresil.comm.group import Builder, Group
from hpresil.comm.store import GenerationStore

RUN_TAG = (1 << 30) + 64  # above those of small messages; the order of calls pairs what has the same one
OPERATIONS = frozenset({"all_reduce", "broadcast", "send", "receive"})


class GlooCommunicator:
    """One rank's end of a group: a `communicators.Communicator`, of bytes in host memory.

    Operations from one thread at a time, `abort` from any.
    """

    def __init__(self, name: str, group: Group) -> None:
        self.name, self.generation = name, group.generation
        self.rank, self.size = group.rank, group.size
        self.device = torch.device("cpu")
        self.group = group
        self._reason = Reason()

    @property
    def reason(self) -> str:
        """Why it was given up; "" while it was not."""
        return self._reason.text

    def supports(self, operation: str) -> bool:
        """Return whether `run` takes this operation."""
        return operation in OPERATIONS

    def run(self, groups: Sequence[Sequence[Operation]], what: str, deadline_s: float) -> None:
        """See `communicators.Communicator.run`."""
        deadline = Deadline(deadline_s, what)
        try:
            for operations in groups:
                works = [work for operation in operations for work in self._start(operation)]
                self.group.finish(works, deadline)
        except PeerLost as error:
            why = self.reason or str(error)
            self._reason.say(why)
            raise PeerLost(
                f"{self.name}: {what}: {why}", rank=self.rank, generation=self.generation
            ) from error

    def abort(self, reason: str) -> bool:
        """See `communicators.Communicator.abort`."""
        self._reason.say(reason)
        self.group.interrupt()
        return True

    def close(self, deadline_s: float = CLOSE_S) -> bool:
        """See `communicators.Communicator.close`."""
        self._reason.say("it was closed")
        return self.group.close(deadline_s)

    def _start(self, operation: Operation) -> list[Any]:
        if self.size == 1:
            return []
        source, destination, peer = operation.source, operation.destination, operation.peer
        others = [rank for rank in range(self.size) if rank != self.rank]
        match operation.operation:
            case "all_reduce" if destination is not None:
                return [self.group.all_reduce(destination.view(torch.float32))]
            case "broadcast" if source is not None and peer == self.rank:
                return [self.group.send(source, to, RUN_TAG) for to in others]
            case "broadcast" | "receive" if destination is not None:
                return [self.group.receive(destination, peer, RUN_TAG)]
            case "send" if source is not None:
                return [self.group.send(source, peer, RUN_TAG)]
        raise ValueError(f"gloo communicators do not run {operation.operation}")


class GlooCommunicators:
    """Builds groups in parallel.

    Args:
        set: Publishes a value under a key of a generation's name space.
        get: Returns the values of keys when all are there, or raises after the given seconds.
        hostname: Address to listen on, and the only one.
    """

    def __init__(
        self,
        set: Callable[[str, bytes], None],
        get: Callable[[list[str], float], list[bytes]],
        *,
        hostname: str,
    ) -> None:
        self._set, self._get, self._hostname = set, get, hostname
        self._lock = threading.Lock()
        self._building: list[Builder] = []
        self._reason = Reason()

    def init_many(
        self, generation: int, wanted: Sequence[Wanted], deadline_s: float
    ) -> list[GlooCommunicator]:
        """See `communicators.Communicators.init_many`."""
        deadline = Deadline(deadline_s, f"building {len(wanted)} groups of generation {generation}")
        builders = [self._builder(generation, each, deadline_s) for each in wanted]
        with self._lock:
            self._building, self._reason = builders, Reason()
        outcomes: queue.SimpleQueue[tuple[int, Group | PeerLost]] = queue.SimpleQueue()
        for place, builder in enumerate(builders):
            threading.Thread(
                target=_build,
                args=(place, builder, outcomes),
                daemon=True,
                name=f"hpresil-bulk-{generation}-{place}",
            ).start()
        built = self._collect(wanted, outcomes, deadline)
        if self._reason.text:
            for each in built.values():
                each.close()
            first = wanted[0] if wanted else Wanted("", 0, 0)
            raise PeerLost(self._reason.text, rank=first.rank, generation=generation)
        return [built[place] for place in range(len(wanted))]

    def abort(self, reason: str) -> None:
        """Give up what is being built. Any thread, any time."""
        with self._lock:
            builders = list(self._building)
        if builders:
            self._reason.say(f"given up: {reason}")
        for builder in builders:
            builder.interrupt()

    def _collect(
        self,
        wanted: Sequence[Wanted],
        outcomes: queue.SimpleQueue[tuple[int, Group | PeerLost]],
        deadline: Deadline,
    ) -> dict[int, GlooCommunicator]:
        """Wait for all; after the first that failed the others are interrupted, so they end soon too."""
        built: dict[int, GlooCommunicator] = {}
        for _ in wanted:
            # A builder ends by itself: at its own deadline, plus what it takes to give up.
            place, outcome = outcomes.get(timeout=deadline.remaining() + CLOSE_S)
            if isinstance(outcome, Group):
                built[place] = GlooCommunicator(wanted[place].name, outcome)
            elif self._reason.say(f"{wanted[place].name}: {outcome}"):
                self.abort("")
        with self._lock:
            self._building = []
        return built

    def _builder(self, generation: int, wanted: Wanted, timeout_s: float) -> Builder:
        space = f"communicators/{wanted.name}/"

        def put(key: str, value: bytes) -> None:
            self._set(space + key, value)

        def get(keys: list[str], seconds: float) -> list[bytes]:
            return self._get([space + key for key in keys], seconds)

        return Builder(
            GenerationStore(put, get, generation=generation, timeout_s=timeout_s),
            generation=generation,
            rank=wanted.rank,
            size=wanted.size,
            hostname=self._hostname,
            timeout_s=timeout_s,
            page=None,
        )


def _build(place: int, builder: Builder, outcomes: queue.SimpleQueue[tuple[int, Group | PeerLost]]) -> None:
    try:
        outcomes.put((place, builder.build()))
    except PeerLost as error:
        outcomes.put((place, error))
