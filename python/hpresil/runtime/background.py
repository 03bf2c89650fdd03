"""Copies that nobody waits for yet, beside a training thread that somebody does wait for."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

NICE = 10  # a tenth of a core that others want too, all of one that nobody wants


def step_back() -> None:
    """Give the calling thread a lower priority than the others have, for good.

    For threads that end with their work: to take it back needs a right that a worker may not have.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
