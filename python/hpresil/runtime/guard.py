"""Keeps readers of the tracked state and the commit apart.

Tracked state does not change during forward and backward, so another thread may copy it out then.
Only a commit changes it, from `apply` to the end of the block: it waits for the readers, and
readers wait for it. A state that is being copied in has no version yet, so nobody reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hpresil.base.deadline import Deadline


class StateGuard:
    """One writer (the training thread), many readers (serving, saving); every wait has a deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False

    @property
    def writing(self) -> bool:
        """Whether a commit is under way."""
        return self._writing

    def begin_change(self, timeout_s: float) -> None:
        """Wait until nobody reads, then keep readers out. Idempotent."""
        deadline = Deadline(timeout_s, "the end of the copies that are being read from this worker")
        with self._changed:
            while self._readers and not self._writing:
                deadline.check()
                self._changed.wait(deadline.remaining())
            self._writing = True

    def end_change(self) -> None:
        """Let readers in again. Idempotent."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    @contextmanager
    def reading(self, timeout_s: float) -> Iterator[None]:
        """Hold the state still while the block runs."""
        deadline = Deadline(timeout_s, "the end of the commit that keeps the state from being read")
        with self._changed:
            while self._writing:
                deadline.check()
                self._changed.wait(deadline.remaining())
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()
