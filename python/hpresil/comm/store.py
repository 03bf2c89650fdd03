"""A rendezvous store for one generation, over whatever carries the control plane.

The problem: a process group meets through a `dist.Store`, and the stock ones open a port, make rank 0
special, or leave stale keys behind. The design: each generation has a name space of its own on the control
plane; this class turns two callables of the control connection into the few store calls gloo makes (set,
wait, get). Torch calls them without holding the GIL, so the answer may arrive through another thread of the
same process.

Waits end by the first of: the values, the deadline, or `end()`. A lookup runs in a daemon thread, so that
`end()` is prompt even if the callable is not; that thread ends with the callable.

Not offered: counters, deletion, watching keys. Keys are written once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch.distributed as dist

from hpresil.base.deadline import Deadline
from hpresil.base.errors import GenerationChanged


class GenerationStore(dist.Store):  # type: ignore[misc, name-defined]  # exported, but not by name
    """The store of one generation. All methods from any thread.

    A lookup raises GenerationChanged after `end`, DeadlineExceeded when its time is over, and what ``get``
    raises.

    Args:
        set: Publishes a value under a key; returns at once or raises.
        get: Returns the values of keys when all are there, or raises after the given seconds.
        generation: Named in errors.
        timeout_s: Deadline of a lookup that names none, in seconds.
    """

    def __init__(
        self,
        set: Callable[[str, bytes], None],
        get: Callable[[list[str], float], list[bytes]],
        *,
        generation: int,
        timeout_s: float,
    ) -> None:
        super().__init__()
        self._set, self._get = set, get
        self._generation, self._timeout_s = generation, timeout_s
        self._known: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._ended = False

    def end(self) -> None:
        """Make every waiting and future call raise GenerationChanged. Any thread, any number of times."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def set(self, key: str, value: str | bytes) -> None:
        """Publish ``value`` for the other members; text as UTF-8.

        Raises:
            GenerationChanged: The store was ended.
        """
        self._check()
        self._set(key, value.encode() if isinstance(value, str) else bytes(value))

    def get(self, key: str) -> bytes:
        """Return the value of ``key``, waiting for it."""
        return self._fetch([key], self._timeout_s)[0]

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Return the values of ``keys`` with one request."""
        return self._fetch(keys, self._timeout_s)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all ``keys`` are there; a `get` of them then costs nothing."""
        self._fetch(keys, self._timeout_s if timeout is None else timeout.total_seconds())

    def _check(self) -> None:
        if self._ended:
            raise GenerationChanged(f"generation {self._generation} was replaced during its rendezvous")

    def _fetch(self, keys: Iterable[str], timeout_s: float) -> list[bytes]:
        self._check()
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._known]
        if missing:
            self._known.update(zip(missing, self._ask(missing, timeout_s), strict=True))
        return [self._known[key] for key in wanted]

    def _ask(self, keys: list[str], timeout_s: float) -> list[bytes]:
        answers: list[list[bytes] | Exception] = []

        def ask() -> None:
            answer: list[bytes] | Exception
            try:
                answer = self._get(keys, timeout_s)
            except Exception as error:
                answer = error
            with self._changed:
                answers.append(answer)
                self._changed.notify_all()

        threading.Thread(target=ask, daemon=True, name=f"hpresil-store-{self._generation}").start()
        deadline = Deadline(timeout_s, f"publication of {keys} in generation {self._generation}")
        with self._changed:
            while not answers:
                self._check()
                deadline.check()
                self._changed.wait(deadline.remaining())
            self._check()
        answer = answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
