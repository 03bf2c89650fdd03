"""Waiting for a group's works in a thread that can be left behind.

The problem: gloo can lose a pending operation when its connection fails, namely if the answer to a message
that was just taken in cannot be sent. Nothing completes it any more, and its `wait` ends with the time limit
of the operation, which must be long. The design: one thread a group drives the waits; who needs them waits
for that thread, and no longer than `GRACE_S` once the group was interrupted. A thread that is left behind
keeps its works, and what they refer to, until gloo's time limit. Their connections are closed, but gloo's own
thread may be late: what it could write to is not used again.

Thread rule: `finish` in one thread at a time, `end` from any.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hpresil.base.deadline import Deadline, now

LOOK_S = 0.02  # how often an interruption is looked for while nothing arrives
GRACE_S = 0.2  # operations of an interrupted group fail within about 10 ms

Request = tuple[list[Any], Deadline]


class Waiter:
    """The waits of one group.

    Attributes:
        thread: Drives the waits; None before the first.
        left_behind: It was left with works that gloo has lost.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[RuntimeError | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None
        self.left_behind = False

    def finish(self, works: list[Any], deadline: Deadline, interrupted: Callable[[], bool]) -> None:
        """Wait for all ``works`` without the GIL, and destroy them, also those after a failed one.

        ``interrupted`` is asked from the calling thread, every `LOOK_S` seconds; ``works`` is empty
        afterwards.

        Raises:
            RuntimeError: One failed, did not end in time, or was lost by an interruption.
        """
        taken, works[:] = list(works), []
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self.thread.start()
        self._requests.put((taken, deadline))
        del taken
        error = self._answer(deadline, interrupted)
        if error is not None:
            raise error

    def end(self) -> None:
        """Let the thread end, after what it waits for."""
        self._requests.put(None)

    def _answer(self, deadline: Deadline, interrupted: Callable[[], bool]) -> RuntimeError | None:
        noticed = 0.0
        while True:
            try:
                return self._answers.get(timeout=LOOK_S)
            except queue.Empty:
                over = deadline.expired()  # the operations have the same one, but not all keep to it
                if not over and not interrupted():
                    continue
            noticed = noticed or now()
            if now() - noticed > GRACE_S:
                self.left_behind = True
                why = "in time" if over else "although its connections were shut down"
                return RuntimeError(f"an operation did not end {why}")

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            works, deadline = request
            del request
            error: RuntimeError | None = None
            try:
                for work in works:
                    if work.wait(timedelta(seconds=max(0.001, deadline.remaining()))) is False:
                        raise RuntimeError("the wait was aborted")
            except RuntimeError as failed:
                error = failed
            # A work's destructor waits for a write that is under way: afterwards nothing is written.
            work = None
            works.clear()
            self._answers.put(error)
