"""What a recovery does not need waits for it: the freeing of dead workers' memory, and new processes.

The problem: when a process dies the kernel frees its memory, 85 ms a GiB and more, on a core that the
survivors compute on. Nobody waits for that, because the death is known before it (`workers`). So a dying
process *steps aside*: it gets the processor time that is left over. A new process in place of a lost one
waits, too.

A recovery is over when every member on this node has committed a step in the newest generation, or after
`LONGEST_S`: memory is not held back for longer. From then on the dying processes get their usual share again.
Sessions share the processor among each other (the kernel's autogroups, the usual thing outside of
containers), so both the share of the worker's session and the priority of its threads are changed. To give
threads their priority back takes a right that not every agent has; without it they do not step aside as
far (`KEPT_NICE`).

Not guaranteed: that nobody ever waits for a process that stepped aside. The kernel's locks on files that are
mapped by several processes are held for microseconds, but a holder may lose its core just then.

Thread rule: the agent's main thread.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LONGEST_S = 5.0
FREED_S = 5.0
AGAIN_S = 0.2  # the kernel takes a change of a session's share every 0.1 s, from agents without privileges
USUAL_NICE, LOWEST_NICE = 0, 19
KEPT_NICE = 10  # a tenth of a busy core
CAP_SYS_NICE = 23


class Calm:
    """Whether a recovery is under way on this node, and who has stepped aside for it."""

    def __init__(self) -> None:
        self._over, self._freed = asyncio.Event(), asyncio.Event()
        self._over.set()
        self._freed.set()
        self._behind: set[int] | None = None  # members that have not committed yet; None before the view
        self._aside: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def lost(self) -> None:
        """A member was lost: a recovery begins."""
        self._behind = None
        self._over.clear()
        self._after(LONGEST_S)

    def view(self, members: Iterable[int]) -> None:
        """A newer view; these are its members on this node."""
        self._behind = set(members)
        if not self._behind:  # nobody here to be disturbed
            self._end()

    def committed(self, member: int) -> None:
        """A member on this node has committed a step in the newest generation."""
        if self._behind and not self._over.is_set():
            self._behind.discard(member)
            if not self._behind:
                self._end()

    def step_aside(self, group: int) -> None:
        """Take the usual share of time from a process group that is dying, if a recovery is under way."""
        if not self._over.is_set():
            self._aside.add(group)
            self._freed.clear()
            set_share(group, LOWEST_NICE)

    def reaped(self, group: int) -> None:
        """Note that the kernel has finished with a process group; call it while the number is taken."""
        self._aside.discard(group)
        if not self._aside:
            self._freed.set()

    async def wait(self) -> None:
        """Wait until a new process takes nothing from a recovery: neither time nor memory.

        Does not wait for a recovery that has no view yet: it may lack just this process.
        """
        if self._behind is not None:
            await self._over.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._freed.wait(), FREED_S)

    def close(self) -> None:
        """Hold nothing back any more."""
        self._end()
        self._after(None)

    def _end(self) -> None:
        self._over.set()
        results = [set_share(group, USUAL_NICE) for group in self._aside]
        self._after(None if all(results) else AGAIN_S)

    def _after(self, seconds: float | None) -> None:
        """End the recovery in so many seconds, whatever was planned before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._end)


def set_share(group: int, nice: int) -> bool:
    """Set the priority of all threads of a process group, and the share of the session it leads.

    Returns whether that is done as far as it can be; False: try again a little later.
    """
    own = nice if may_raise() else KEPT_NICE
    with suppress(OSError):  # the process is gone
        os.setpriority(os.PRIO_PGRP, group, own)
    try:
        Path(f"/proc/{group}/autogroup").write_text(str(nice))
    except BlockingIOError:
        return False
    except OSError:
        pass  # the process is gone, or this kernel has no autogroups
    return True


def may_raise() -> bool:
    """Return whether this process may give others back a priority that it took from them."""
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20:
        return True
    lines = Path("/proc/self/status").read_text().splitlines()
    rights = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(rights >> CAP_SYS_NICE & 1)
