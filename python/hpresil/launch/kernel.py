"""What the kernel says about processes, read from /proc.

The one surprising thing here is `ending_status`: a process that dies frees its memory before its parent can
wait for it (85 ms a GiB), but the kernel notes the exit status *before* that, and shows it in
``/proc/PID/stat`` to processes of the same user. So the agent knows how a worker of any size ended a fraction
of a millisecond after its mutex fired.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PF_EXITING = 0x4
EXIT_STATUS_WAIT_S = 0.002


@dataclass(frozen=True)
class Stat:
    """Some fields of ``/proc/PID/stat``; ``code`` is a wait status, valid once ``exiting``."""

    state: str
    parent: int
    group: int
    session: int
    exiting: bool
    code: int

    @property
    def stopped(self) -> bool:
        """Whether a stop signal holds the process."""
        return self.state == "T"


def stat(pid: int) -> Stat | None:
    """Return what the kernel says about ``pid``; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        exiting=bool(int(fields[6]) & PF_EXITING),
        code=int(fields[49]),
    )


def ending_status(pid: int) -> int | None:
    """Return the exit status of a child that is ending, minus the signal if one killed it.

    None: it is not ending at all (only its holder thread ended, or it called exec), or it is gone. Waits at
    most `EXIT_STATUS_WAIT_S`, because the thread that fired the mutex can be a little ahead of the others.
    """
    end = time.monotonic() + EXIT_STATUS_WAIT_S
    while (now := stat(pid)) is not None:
        if now.exiting or now.state in "ZX":
            return os.waitstatus_to_exitcode(now.code & ~0x80)
        if time.monotonic() > end:
            return None
        time.sleep(0.0001)
    return None


def kill_group(group: int) -> None:
    """Send SIGKILL to a process group; one that is gone is as good."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def children() -> set[int]:
    """Return the children of this process's main thread, adopted orphans included."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()


def kill_and_reap(pids: set[int]) -> None:
    """Kill children of this process and reap those that are dead; call again for the others."""
    for pid in pids:
        _kill(pid)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def adopt_orphans() -> bool:
    """Make this process the parent of all its descendants' orphans; return whether the kernel agreed."""
    import ctypes

    pr_set_child_subreaper = 36
    return bool(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)
