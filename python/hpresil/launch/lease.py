"""A lock on a shared file, as the other way to make a coordinator (see `membership.quorum`)."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)
FIRST_TERM = 1


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
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                log.warning("the lease %s cannot be opened: %s", self.path, error.strerror)
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            self._fd = fd
        return True

    def next_term(self) -> int:
        """Return a term that no earlier holder has had, and note it; 0 if the lock is not held."""
        if self._fd < 0:
            return 0
        text = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
        term = int(text) + 1 if text.isdecimal() else FIRST_TERM + 1
        os.pwrite(self._fd, f"{term}\n".encode().ljust(32), 0)
        return term

    def release(self) -> None:
        """Let go of the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
