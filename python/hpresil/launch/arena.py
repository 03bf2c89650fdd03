"""Which of the agent's snapshot frames may be filled, read or kept: bookkeeping without memory.

The agent owns a few frames (memfds) that outlive its workers. A frame is free → filling (by one worker, for
one generation) → sealed (a version) → free again once it is neither the newest sealed one nor being read.

Rules:

1. The newest sealed frame is never filled again before another one is sealed: it is the state from which the
   job goes on if every worker dies.
2. A frame whose writer died is free only after the writer was *reaped*: until then the kernel may still be
   finishing a store of it.
3. A frame that a newcomer reads is not filled until the newcomer said so, failed, or is lost.
4. One serve answers everybody who needs that version, also a later generation: two frames of one version hold
   the same bits. The initial version is the exception, because it is whatever rank 0 built.

What it does not do: touch memory, send messages (it returns what to send), or know the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AGENT = -1
"""As a source in a decision: the agent's newest sealed frame."""


@dataclass(frozen=True)
class Serve:
    """Ask ``worker`` to copy its state of ``version`` into ``frame``."""

    worker: int
    generation: int
    version: int
    frame: int


@dataclass(frozen=True)
class Hand:
    """Tell newcomer ``worker`` that ``frame`` holds ``version``."""

    worker: int
    generation: int
    version: int
    frame: int


Action = Serve | Hand


@dataclass
class Frame:
    """One frame: its writer while it is filled, its version once sealed, and who reads it."""

    writer: int | None = None
    generation: int = -1
    version: int = -1
    orphaned: bool = False
    readers: set[int] = field(default_factory=set)


@dataclass
class _Request:
    generation: int
    version: int
    source: int
    newcomers: set[int]
    fresh: bool  # an older frame of that version will not do
    served: bool = False


class FrameBook:
    """The state of the agent's frames.

    Args:
        frames: How many there are; two let one be filled while the other is kept.
    """

    def __init__(self, frames: int = 2) -> None:
        self.frames = [Frame() for _ in range(frames)]
        self.newest: int | None = None
        self.room = False
        self._wanted: _Request | None = None
        self._only_copy = False

    def grown(self, room: bool) -> list[Action]:
        """Note whether the frames are large enough for the state now."""
        self.room = room
        return self._advance()

    def decided(
        self, generation: int, version: int, sources: Mapping[int, int], *, initial: bool = False
    ) -> list[Action]:
        """Take in who copies from whom; it replaces what an older decision still wanted."""
        self._wanted = None
        if not sources:
            return []
        live = [source for source in sources.values() if source != AGENT]
        source = live[0] if live else AGENT
        self._only_copy = source == AGENT
        self._wanted = _Request(generation, version, source, set(sources), fresh=initial)
        return self._advance()

    def snapshot(self, generation: int, version: int, worker: int) -> list[Action]:
        """Ask for a snapshot that nobody waits for; dropped if frames or other wishes do not allow it."""
        if self._wanted is not None or any(frame.writer is not None for frame in self.frames):
            return []
        self._wanted = _Request(generation, version, worker, set(), fresh=False)
        return self._advance()

    def served(
        self, worker: int, generation: int, version: int, frame: int, reader: int | None = None
    ) -> tuple[bool, list[Action]]:
        """``worker`` sealed ``frame``; return whether it is the newest now, and what to do.

        ``reader`` reads it from this moment on.
        """
        entry = self._filled_by(worker, generation, frame)
        if entry is None:
            return False, []
        entry.writer, entry.version = None, version
        if reader is not None:
            entry.readers.add(reader)
        newest = self.newest is None or version >= self.frames[self.newest].version
        if newest:
            self.newest = frame
        wanted = self._wanted
        if wanted is not None and wanted.version == version and wanted.generation == generation:
            wanted.fresh = False
            if not wanted.newcomers:
                self._wanted = None
        return newest, self._advance()

    def serve_failed(self, worker: int, generation: int, frame: int) -> list[Action]:
        """``worker`` did not fill ``frame``; who waits for it needs another decision."""
        entry = self._filled_by(worker, generation, frame)
        if entry is None:
            return []
        entry.writer, entry.version = None, -1
        if self._wanted is not None and (self._wanted.generation == generation or not self._wanted.newcomers):
            self._wanted = None
        return self._advance()

    def read_done(self, worker: int) -> list[Action]:
        """``worker`` has finished reading, well or not."""
        for frame in self.frames:
            frame.readers.discard(worker)
        return self._advance()

    def read_failed(self, worker: int, frame: int) -> list[Action]:
        """``worker`` could not read ``frame``: it is not handed to anybody again.

        Unless it is all there is: the agent's frame stays if no live worker was the source.
        """
        if 0 <= frame < len(self.frames) and worker in self.frames[frame].readers and not self._only_copy:
            self.frames[frame].version = -1
            if self.newest == frame:
                self.newest = None
        return self.read_done(worker)

    def lost(self, worker: int) -> list[Action]:
        """``worker`` is dead or being killed; what it was filling stays blocked until it is reaped."""
        for frame in self.frames:
            if frame.writer == worker:
                frame.orphaned, frame.version = True, -1
        if self._wanted is not None:
            self._wanted.newcomers.discard(worker)
            if self._wanted.source == worker and not self._have(self._wanted):
                self._wanted = None
        return self.read_done(worker)

    def reaped(self, worker: int) -> list[Action]:
        """Note that the kernel has finished with ``worker``: nothing of it can write any more."""
        for frame in self.frames:
            if frame.writer == worker and frame.orphaned:
                frame.writer, frame.orphaned = None, False
        return self._advance()

    def awaits(self, worker: int) -> bool:
        """Return whether a frame is blocked until ``worker`` is reaped."""
        return any(frame.writer == worker and frame.orphaned for frame in self.frames)

    def hold(self, frame: int, version: int, reader: int) -> bool:
        """Add ``reader`` to a sealed frame if it holds ``version``; return whether it does."""
        entry = self.frames[frame]
        if entry.writer is not None or entry.version != version:
            return False
        entry.readers.add(reader)
        return True

    def newest_version(self) -> int:
        """Return the version of the newest sealed frame, or -1."""
        return -1 if self.newest is None else self.frames[self.newest].version

    def _filled_by(self, worker: int, generation: int, frame: int) -> Frame | None:
        if not 0 <= frame < len(self.frames):
            return None
        entry = self.frames[frame]
        same = entry.writer == worker and entry.generation == generation and not entry.orphaned
        return entry if same else None

    def _have(self, wanted: _Request) -> bool:
        if self.newest is None or wanted.fresh:
            return False
        return wanted.source == AGENT or self.frames[self.newest].version == wanted.version

    def _advance(self) -> list[Action]:
        wanted = self._wanted
        if wanted is None:
            return []
        if self._have(wanted):
            return self._hand_out(wanted)
        if wanted.served or wanted.source == AGENT or not self.room:
            return []
        if (
            any(f.writer is not None and f.version == wanted.version for f in self.frames)
            and not wanted.fresh
        ):
            return []  # on its way already, for an older generation
        frame = self._fillable()
        if frame is None:
            return []
        wanted.served = True
        self.frames[frame] = Frame(writer=wanted.source, generation=wanted.generation, version=wanted.version)
        return [Serve(wanted.source, wanted.generation, wanted.version, frame)]

    def _hand_out(self, wanted: _Request) -> list[Action]:
        assert self.newest is not None
        frame = self.frames[self.newest]
        frame.readers |= wanted.newcomers
        self._wanted = None
        return [
            Hand(newcomer, wanted.generation, frame.version, self.newest)
            for newcomer in sorted(wanted.newcomers)
        ]

    def _fillable(self) -> int | None:
        for index, frame in enumerate(self.frames):
            if index != self.newest and frame.writer is None and not frame.readers:
                return index
        return None
