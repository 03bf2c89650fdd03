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
from hpresil.snapshot.memory import claimed_bytes
from hpresil.snapshot.preface import HEADER_BYTES


class Frames:
    """The frames by number. Any thread."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = list(fds)
        self._mappings: dict[int, Mapping] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._fds)

    def mapped(self, number: int, nbytes: int) -> Mapping:
        """Return a writable mapping of at least ``nbytes`` of a frame, which grows if it is smaller.

        One that is large enough is kept although the file has grown since: sizes announced by different
        workers differ by a few bytes.

        Raises:
            OSError: There is not enough memory.
        """
        fd = self._fds[number]
        with self._lock:
            make_room(fd, nbytes)
            mapping = self._mappings.get(number)
            if mapping is None or mapping.nbytes < nbytes:
                # The old mapping goes when the last view into it does.
                mapping = self._mappings[number] = Mapping(fd, os.fstat(fd).st_size, populate=True)
            return mapping

    def filled(self, number: int) -> Mapping | None:
        """Return a mapping of all that the header of a frame speaks of, None if there is no header."""
        size = os.fstat(self._fds[number]).st_size
        if size < HEADER_BYTES:
            return None
        mapping = self.mapped(number, HEADER_BYTES)
        with memoryview(mapping) as memory:
            nbytes = claimed_bytes(memory)
        return mapping if nbytes <= mapping.nbytes else self.mapped(number, min(nbytes, size))

    def warm(self, nbytes: int) -> None:
        """Map all frames for states of ``nbytes``."""
        for number in range(len(self._fds)):
            self.mapped(number, nbytes)


def make_room(fd: int, nbytes: int) -> None:
    """Grow a memory file that is smaller than ``nbytes``.

    The agent and all workers do so at the same time: never with `ftruncate`, which is refused where it
    would shrink what another process has just made larger.
    """
    have = os.fstat(fd).st_size
    if have < nbytes:
        os.posix_fallocate(fd, have, nbytes - have)
