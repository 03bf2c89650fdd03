"""A process that waits for the end of another one and then removes a directory: ``keeper.py DIRECTORY PID``.

It runs by itself, without this package and its imports, so that it is small. One is enough for a directory:
it holds a lock there. It ends when the directory is gone, and takes the one around it along if nothing else
is in there; whoever is about to use that one makes it again (`place.files`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import sys

LOCK = "keeper.lock"
LOOK_MS = 1000


def started(pid: int) -> int:
    """Return when a process began, in ticks since the machine's start; -1 if it is gone.

    Together with it a process id is unique.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return -1


def main(directory: str, pid: int) -> None:
    """Wait, then remove."""
    _remove_after(directory, pid)
    with contextlib.suppress(OSError):  # others are in there, or it is gone
        os.rmdir(os.path.dirname(directory))


def _remove_after(directory: str, pid: int) -> None:
    try:
        lock = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # another keeper, or no directory any more
    try:
        ended = select.poll()
        ended.register(os.pidfd_open(pid), select.POLLIN)
        while not ended.poll(LOOK_MS):
            if not os.path.isdir(directory):
                return
    except ProcessLookupError:
        pass
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
