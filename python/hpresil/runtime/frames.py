"""This worker's mappings of the agent's frame memory, kept and faulted in ahead of their use.

Mapping a frame anew for each copy costs a page fault for every 4 KB: 360 ms of processor time for
604 MB, where the copy itself takes 55. So each worker maps both frames once their size is known (after the
first commit, or a spare's rehearsal), on its serving thread, and again only when a file has grown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from hpresil.native import Mapping
from hpresil.snapshot.layout import HEADER_BYTES


class Frames:
    """The frames by number. Any thread."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = list(fds)
        self._mappings: dict[int, Mapping] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._fds)

    def mapped(self, number: int, nbytes: int = 0) -> Mapping:
        """Return a writable mapping of the whole frame, which is grown to ``nbytes`` if it is smaller.

        Raises:
            OSError: There is not enough memory.
        """
        fd = self._fds[number]
        with self._lock:
            make_room(fd, nbytes)
            mapping = self._mappings.get(number)
            if mapping is None or mapping.nbytes < os.fstat(fd).st_size:
                # The old mapping goes when the last view into it does.
                mapping = self._mappings[number] = Mapping(fd, os.fstat(fd).st_size, populate=True)
            return mapping

    def there(self, number: int) -> Mapping | None:
        """Return the mapping of a frame that has memory, None for one that has not."""
        return self.mapped(number) if os.fstat(self._fds[number]).st_size >= HEADER_BYTES else None

    def warm(self, nbytes: int) -> None:
        """Map all frames for states of ``nbytes``."""
        for number in range(len(self._fds)):
            self.mapped(number, nbytes)


def make_room(fd: int, nbytes: int) -> None:
    """Grow a memory file that is smaller than ``nbytes``; it cannot shrink."""
    have = os.fstat(fd).st_size
    if have < nbytes:
        os.ftruncate(fd, nbytes)
        os.posix_fallocate(fd, have, nbytes - have)
