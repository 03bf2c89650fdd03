"""A lock on a shared file, as the other way to make a coordinator (see `membership.quorum`)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Lease:
    """A lock on a file that all nodes share; whoever holds it is the coordinator.

    The file system must keep locks between machines (NFS 4 does) and release those of a machine that is lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> bool:
        """Take the lock if it is free; it is held until `release` or the end of this process."""
        if self._fd < 0:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def release(self) -> None:
        """Let go of the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
