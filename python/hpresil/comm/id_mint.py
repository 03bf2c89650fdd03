"""Ids of communicators, made before they are needed, by the agent.

An id of NCCL is the address of a listening socket in the process that made it, so the process that makes it
has to outlive the initialisation: the agent does, a worker may not. Making one needs no device and takes
about a millisecond; a few are kept ready.

Each id is given out once, to one communicator of one generation; whoever asks for an older generation than
the newest, or for the same communicator again, is refused: an id that is used twice makes ranks of two
groups wait for each other.

Thread safety: all methods from any thread. Not guaranteed: the socket of an id that is given out and never
used stays open as long as the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from hpresil.base.errors import GenerationChanged, UsageError


class IdMint:
    """Makes and gives out ids. All methods from any thread.

    Args:
        make: Returns a new id of 128 bytes, from the thread that calls `fill` or `take`;
            `hpresil.native.Nccl.unique_id` in production. What it raises, they raise.
        ready: How many ids `fill` keeps.
    """

    def __init__(self, make: Callable[[], bytes], ready: int = 4) -> None:
        self._make, self._target = make, ready
        self._lock = threading.Lock()
        self._ready: deque[bytes] = deque()
        self._given: set[str] = set()
        self._generation = 0

    @property
    def ready(self) -> int:
        """How many ids are ready."""
        return len(self._ready)

    def fill(self) -> None:
        """Make ids until enough are ready. Blocks about a millisecond for each.

        Raises:
            NativeError: NCCL cannot make one.
        """
        while len(self._ready) < self._target:
            made = self._make()
            with self._lock:
                self._ready.append(made)

    def take(self, generation: int, name: str, roots: int = 1) -> list[bytes]:
        """Return the ids of one communicator, one a root, each of 128 bytes.

        Blocks about a millisecond for each that is not ready.

        Args:
            generation: The membership counter.
            name: The communicator's name, unique in its generation.
            roots: How many ids it needs.

        Raises:
            NativeError: NCCL cannot make one.
            GenerationChanged: A newer generation has taken ids already.
            UsageError: This communicator of this generation has its ids.
        """
        with self._lock:
            if generation < self._generation:
                raise GenerationChanged(
                    f"generation {generation} was replaced by {self._generation}: no ids for it"
                )
            if generation > self._generation:
                self._generation, self._given = generation, set()
            if name in self._given:
                raise UsageError(f"communicator {name} of generation {generation} has its ids: one use each")
            self._given.add(name)
            taken = [self._ready.popleft() for _ in range(min(roots, len(self._ready)))]
        return taken + [self._make() for _ in range(roots - len(taken))]
