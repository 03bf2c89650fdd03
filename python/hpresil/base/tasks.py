"""Tasks of an event loop that nobody awaits: an error in one of them is told, and all end together.

And work that a cancellation must not cut short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def surely(work: asyncio._CoroutineLike[None]) -> None:
    """Do ``work`` to its end, also when this is cancelled meanwhile; that takes effect afterwards."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


class Tasks:
    """Keeps tasks alive while they run. Single-threaded: to be used from one event loop.

    Args:
        on_error: Called with the error of a task that should not have one.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: asyncio._CoroutineLike[None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
