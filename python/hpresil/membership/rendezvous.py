"""The key-value store process groups are built with, one name space a generation.

Keys of one generation are never visible in another: stale keys are the classic cause of hanging
rebuilds. When a generation ends, its keys and the requests that wait for them are dropped without
an answer; the asking side is told of the new generation by its view.

Pure: no clocks, sockets or locks. Bounded: a generation holds at most `MAX_BYTES`; what would
exceed it, like whatever belongs to another generation, is refused and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hpresil.membership.messages import StoreGet, StoreSet, StoreValues

MAX_BYTES = 64 << 20


class Answer(NamedTuple):
    """A reply to worker ``to``."""

    to: int
    values: StoreValues


class _Waiting(NamedTuple):
    worker: int
    request: int
    keys: tuple[str, ...]


class Rendezvous:
    """The store of the current generation.

    Attributes:
        generation: Whose keys are held.
        refused: How many messages were stale, early or too big.
    """

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.refused = 0
        self._values: dict[str, bytes] = {}
        self._waiting: list[_Waiting] = []
        self._bytes = 0

    def advance(self, generation: int) -> None:
        """End older generations: drop their keys and the requests that wait for them."""
        if generation > self.generation:
            self.generation = generation
            self._values, self._waiting, self._bytes = {}, [], 0

    def take(self, worker: int, said: StoreSet | StoreGet) -> list[Answer]:
        """Return the answers that follow from what a worker says."""
        if isinstance(said, StoreSet):
            return self.set(said.generation, said.key, said.value)
        return self.get(worker, said.request, said.generation, said.keys)

    def set(self, generation: int, key: str, value: bytes) -> list[Answer]:
        """Set a key and return the answers that became possible."""
        grown = self._bytes + len(value) + len(key) - len(self._values.get(key, b""))
        if generation != self.generation or grown > MAX_BYTES:
            self.refused += 1
            return []
        self._values[key] = value
        self._bytes = grown
        ready = [waiting for waiting in self._waiting if self._complete(waiting.keys)]
        self._waiting = [waiting for waiting in self._waiting if waiting not in ready]
        return [self._answer(waiting) for waiting in ready]

    def get(self, worker: int, request: int, generation: int, keys: Sequence[str]) -> list[Answer]:
        """Return the answer if all keys are there; else it follows from a later `set`."""
        if generation != self.generation:
            self.refused += 1
            return []
        waiting = _Waiting(worker, request, tuple(keys))
        if self._complete(waiting.keys):
            return [self._answer(waiting)]
        self._waiting.append(waiting)
        return []

    def forget(self, worker: int) -> None:
        """Drop what a lost worker waits for."""
        self._waiting = [waiting for waiting in self._waiting if waiting.worker != worker]

    @property
    def waiting(self) -> int:
        """The number of requests that wait for keys."""
        return len(self._waiting)

    def _complete(self, keys: Sequence[str]) -> bool:
        return all(key in self._values for key in keys)

    def _answer(self, waiting: _Waiting) -> Answer:
        values = [self._values[key] for key in waiting.keys]
        return Answer(waiting.worker, StoreValues(request=waiting.request, values=values))
