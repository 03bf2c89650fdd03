"""A few frames, of which the newest sealed one is never touched.

free → filling → sealed(version). A fill takes the frame with the oldest version, never the newest sealed one,
so a version is there at any time once the first one is. The state is in the memory itself: whoever opens
frames that a dead process has left finds what was sealed.

Thread rule: one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpresil import native
from hpresil.base.errors import ConfigError, NativeError, TransferFailed
from hpresil.snapshot import preface
from hpresil.snapshot.memory import set_seal


@dataclass
class Slot:
    """One frame: its memory file, this process's mapping of it, and the version that is sealed in it."""

    fd: int
    owned: bool  # this process made it, and may replace it by a larger one
    mapping: native.Mapping | None = None
    version: int | None = None


class FrameSet:
    """Frames in memory files of their own, or in those behind ``fds``.

    Args:
        count: How many to make; at least two, so that one is sealed while another is filled.
        fds: Memory files that are there already and outlive this object; they may hold versions.
        threads: How many threads bring in new memory.

    Attributes:
        note: What kind of pages the frames have, once there are some.
    """

    def __init__(self, count: int, fds: Sequence[int] = (), *, threads: int = 1) -> None:
        if count < 2:
            raise ConfigError(
                f"{count} frame(s) cannot hold one version while another is written; give 2 or more"
            )
        self.note = ""
        self._threads = threads
        self._slots = [Slot(fd, owned=False) for fd in fds] or [Slot(-1, owned=True) for _ in range(count)]
        for slot in self._slots:
            if slot.fd >= 0 and os.fstat(slot.fd).st_size >= preface.HEADER_BYTES:
                slot.mapping = native.Mapping(slot.fd, os.fstat(slot.fd).st_size)
                slot.version = native.sealed_version(slot.mapping)

    def versions(self) -> list[int]:
        """Return the sealed versions, newest first."""
        return sorted((slot.version for slot in self._slots if slot.version is not None), reverse=True)

    def fd_of(self, version: int) -> int:
        """Return the memory file that holds ``version``."""
        return next(slot.fd for slot in self._slots if slot.version == version)

    def ready(self, nbytes: int) -> None:
        """Have all frames without a version there, with room for ``nbytes``, so that no fill has to wait.

        Raises:
            TransferFailed: There is not enough memory.
        """
        for slot in self._slots:
            if slot.version is None:
                self._have(slot, nbytes)
            elif slot.mapping is not None:
                native.fault_in(slot.mapping.address, slot.mapping.nbytes, self._threads)

    def fill(self, nbytes: int) -> Fillable:
        """Return a frame to fill, with a mapping of at least ``nbytes`` that is all there.

        Raises:
            TransferFailed: There is not enough memory; nothing was changed.
        """
        slot = min(self._slots, key=lambda slot: -1 if slot.version is None else slot.version)
        self._have(slot, nbytes)
        assert slot.mapping is not None
        slot.version = None
        return Fillable(slot.mapping, lambda version: self._sealed(slot, version))

    def close(self) -> None:
        """Close the memory files made here; mappings go with the last view of them."""
        for slot in self._slots:
            slot.mapping = None
            if slot.owned and slot.fd >= 0:
                os.close(slot.fd)
                slot.fd = -1

    def _sealed(self, slot: Slot, version: int) -> None:
        for other in self._slots:
            if other.version == version:
                self._forget(other)  # the same version again: the later one counts
        slot.version = version

    def _forget(self, slot: Slot) -> None:
        assert slot.mapping is not None
        slot.version = None
        with memoryview(slot.mapping) as memory:
            set_seal(memory, 0)

    def _have(self, slot: Slot, nbytes: int) -> None:
        if slot.mapping is None or slot.mapping.nbytes < nbytes:
            try:
                self._grow(slot, nbytes)
            except (NativeError, OSError) as error:
                raise TransferFailed(
                    f"a frame of {nbytes} bytes cannot be had: {error}; snapshots need memory for all frames "
                    "(fewer frames, or a directory with more room)"
                ) from error

    def _grow(self, slot: Slot, nbytes: int) -> None:
        nbytes += nbytes // 64  # counters and schedules grow by a few digits
        if slot.owned:
            fd, nbytes, self.note = native.arena("hpresil-frame", nbytes)
            if slot.fd >= 0:
                os.close(slot.fd)
            slot.fd = fd
        else:
            have = os.fstat(slot.fd).st_size
            if have < nbytes:
                os.posix_fallocate(slot.fd, have, nbytes - have)
            self.note = (
                self.note or "a memory file of somebody else, or in a directory: pages as that has them"
            )
        mapping = native.Mapping(slot.fd, nbytes)
        native.fault_in(mapping.address, mapping.nbytes, self._threads)
        slot.mapping = mapping


@dataclass(frozen=True)
class Fillable:
    """A frame that may be filled; call ``sealed`` with the version when it is."""

    mapping: native.Mapping
    sealed: Callable[[int], None]
