"""Monotonic time and deadlines: every wait in hpresil is bounded by one of these."""

from __future__ import annotations

import time

from hpresil.base.errors import DeadlineExceeded


def now() -> float:
    """Return the monotonic time in seconds; comparable between processes of one machine."""
    return time.monotonic()


class Deadline:
    """A point in time by which something must have happened.

    Args:
        seconds: How long from now, in seconds.
        what: What is waited for, in words that fit "… did not happen within N s".
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.what = what
        self._end = now() + seconds

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self._end - now())

    def expired(self) -> bool:
        """Return whether the deadline has passed."""
        return now() >= self._end

    def check(self) -> None:
        """Raise DeadlineExceeded if the deadline has passed."""
        if self.expired():
            raise DeadlineExceeded(f"{self.what} did not happen within {self.seconds:g} s")
