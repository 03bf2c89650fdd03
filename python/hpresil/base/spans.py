"""Spans: what this process did from when to when, under the names that a profiler shows as well.

    with span("reduce"):
        …

Design: a span costs two looks at the clock and a few small writes to memory that the agent lent to this
process (`HPRESIL_TRACE_FD`, in the form of `span_ring`). The training thread never touches a file: the agent
copies the memory into ``RUN_DIR/trace``. The memory outlives this process, so a SIGKILL at any point loses
nothing that was recorded, and the spans that were open show what it died in. Without lent memory (a script
without a launcher, a forked child of the script) and without a profiler a span does nothing.

Each thread has a track of its own, on which spans nest. A span that is left behind by an exception or an
abandoned generator ends together with the one around it.

Thread safety: all functions may be called from any thread; begin and end a span in the same one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from mmap import mmap
from time import monotonic_ns
from types import TracebackType

from hpresil.base import span_ring as ring

NAMES = {
    "import": "from the start of the process to hpresil.init: interpreter, imports",
    "build": "from hpresil.init to run.track: the script builds its model",
    "track": "run.track takes in what must survive",
    "join": "the worker says that it is ready, or loads a checkpoint before that",
    "standby step": "a spare's rehearsal of one step",
    "standby": "a spare waits for a rank, a newcomer for its place",
    "step": "one step block of the script",
    "slot": "forward and backward of one slot",
    "data": "the batch of a microbatch is fetched",
    "wait": "waits for the other members, for a decision, or for a copy that is being read",
    "reduce": "the gradient is exchanged and summed",
    "fold": "parts of it are added up as they come; value: bytes that came from other nodes",
    "collect": "the rest is read in the memory of this node's workers; value: all bytes read there",
    "vote": "the members tell each other that the gradient is complete",
    "apply": "clipping and optimizers",
    "commit": "the committed step is reported",
    "view": "a newer view arrived: the old group is interrupted, the report sent",
    "regroup": "the old group is closed, the new one built",
    "serve": "state is copied out for a newcomer or a snapshot",
    "seal": "the frame is filled and sealed",
    "restore": "a newcomer copies the state",
    "copy parameters": "one section of the state is copied and verified",
    "copy buffers": "likewise",
    "copy optimizer": "likewise",
    "copy rest": "likewise",
    "save": "the state is written to disk",
    "map frames": "the agent's frames are mapped ahead of use",
    "notice": "a worker's end was noticed: its process group is killed, everybody told",
    "reap": "the kernel frees the memory of a worker whose end was noticed",
    "decide": "the coordinator decides and makes it durable",
    "start worker": "a process is started",
    "fetch": "a frame is copied from another node's agent",
    "grow frames": "memory for snapshots is reserved",
    "native copy": "bytes are copied and their checksums computed on the way; value: how many",
    "native checksum": "bytes are read for their checksum; value: how many",
    "native sum": "arrays are added in their fixed order; value: bytes read",
    "native squares": "squares are summed in their fixed order; value: bytes read",
    "native interrupt": "the old group's sockets are shut down because a newer view arrived",
}
"""Every name of a span, at most 16 ASCII characters."""

clock = monotonic_ns


class Recorder:
    """Writes the spans of this process into its memory."""

    def __init__(self, memory: mmap) -> None:
        found = ring.head(memory)
        self.memory, self._capacity, self._written = memory, found.capacity, found.written
        self._lock = threading.Lock()
        self._local = threading.local()
        self._tracks = 0
        ring.COUNT.pack_into(memory, ring.PID_AT, os.getpid())

    def track(self) -> Track:
        """Return the calling thread's track."""
        try:
            mine: Track = self._local.track
        except AttributeError:
            mine = self._local.track = self._new_track()
        return mine

    def _new_track(self) -> Track:
        with self._lock:
            number = self._tracks
            self._tracks += 1
        if number >= ring.TRACKS:
            return Track(ring.TRACKS - 1, depth=0)
        name = threading.current_thread().name.encode(errors="replace")[: ring.TRACK_BYTES]
        start = ring.TRACKS_AT + number * ring.TRACK_BYTES
        self.memory[start : start + len(name)] = name
        return Track(number, depth=ring.DEPTH)

    def write(self, span: _Span, end_ns: int, track: int, flags: int) -> None:
        """Append one record and count it."""
        place = (span.value, span.step, span.generation, span.slot, track, flags, 0, _encoded[span.name])
        with self._lock:
            number = self._written
            at = ring.HEADER_BYTES + (number % self._capacity) * ring.RECORD_BYTES
            ring.RECORD.pack_into(self.memory, at, number, span.begin_ns, end_ns, *place)
            self._written = number + 1
            ring.COUNT.pack_into(self.memory, ring.WRITTEN_AT, number + 1)


class Track:
    """The spans that one thread has open, and its part of the table of open spans.

    Args:
        number: The track's index.
        depth: How many of its spans have a place in the table; 0 for threads beyond the last track, which
            share that one.
    """

    __slots__ = ("depth", "flags", "number", "stack", "table")

    def __init__(self, number: int, *, depth: int) -> None:
        self.number, self.depth = number, depth
        self.flags = 0 if depth else ring.OVERLAPPING
        self.table = ring.OPEN_AT + number * ring.DEPTH * ring.RECORD_BYTES
        self.stack: list[_Span] = []


class _Span:
    """A span that is open inside its ``with`` block; ``value`` may be set until it ends."""

    __slots__ = ("_depth", "_track", "begin_ns", "generation", "name", "slot", "step", "value")

    def __init__(self, name: str, step: int, generation: int, slot: int, value: int) -> None:
        self.name, self.step, self.generation, self.slot, self.value = name, step, generation, slot, value
        self._track: Track | None = None

    def __enter__(self) -> _Span:
        if _push is not None:
            _push(self.name)
        recorder = _recorder
        if recorder is not None:
            track = self._track = recorder.track()
            depth = self._depth = len(track.stack)
            track.stack.append(self)
            begin_ns = self.begin_ns = clock()
            if depth < track.depth:
                at, name = track.table + depth * ring.RECORD_BYTES, _encoded[self.name]
                place = (self.value, self.step, self.generation, self.slot, track.number, 0, 0, name)
                ring.RECORD.pack_into(recorder.memory, at, 0, begin_ns, 0, *place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        track, recorder = self._track, _recorder
        if track is None or recorder is None:
            if _pop is not None:
                _pop()
        elif self._depth < len(track.stack) and track.stack[self._depth] is self:
            _end_down_to(recorder, track, self._depth)


def _end_down_to(recorder: Recorder, track: Track, depth: int) -> None:
    """End all open spans from ``depth`` on: inside of one that ends nothing stays open."""
    end_ns, stack = clock(), track.stack
    while len(stack) > depth:
        recorder.write(stack.pop(), end_ns, track.number, track.flags)
        if len(stack) < track.depth:
            at = track.table + len(stack) * ring.RECORD_BYTES + ring.BEGIN_AT
            ring.COUNT.pack_into(recorder.memory, at, 0)
        if _pop is not None:
            _pop()


class _Nothing:
    """Stands in for a span where nobody looks."""

    value = 0

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_nothing = _Nothing()
_encoded = {name: name.encode("ascii") for name in NAMES}
_recorder: Recorder | None = None
_step, _generation = -1, 0
_push: Callable[[str], None] | None = None
_pop: Callable[[], None] | None = None


def span(name: str, *, slot: int = -1, value: int = 0, generation: int | None = None) -> _Span | _Nothing:
    """Return a context manager that records its block under ``name``, one of `NAMES`."""
    if _recorder is None and _push is None:
        return _nothing
    return _Span(name, _step, _generation if generation is None else generation, slot, value)


def begin(name: str) -> None:
    """Begin a span that `end` ends, for what is no block; needs lent memory."""
    if _recorder is not None:
        _Span(name, _step, _generation, -1, 0).__enter__()


def end(name: str) -> None:
    """End this thread's newest open span of that name, and those inside; nothing if there is none."""
    recorder = _recorder
    if recorder is not None:
        track = recorder.track()
        for opened in reversed(track.stack):
            if opened.name == name:
                _end_down_to(recorder, track, opened._depth)
                return


def add(name: str, begin_ns: int, *, generation: int = 0, value: int = 0) -> None:
    """Record a span that ends now and may overlap others: a wait inside of an event loop's task.

    Args:
        name: One of `NAMES`.
        begin_ns: What `clock` said when it began.
        generation: The generation concerned.
        value: The number that belongs to it, say the worker concerned.
    """
    recorder = _recorder
    if recorder is not None:
        done = _Span(name, _step, generation, -1, value)
        done.begin_ns = begin_ns
        recorder.write(done, clock(), recorder.track().number, ring.OVERLAPPING)


def at(step: int, generation: int) -> None:
    """Say where the process is now: spans that begin from here on carry it."""
    global _step, _generation
    _step, _generation = step, generation


def attach(fd: int) -> None:
    """Record from here on into the memory behind ``fd``, which may be closed afterwards.

    Raises:
        OSError: It cannot be mapped.
        ValueError: It is not the memory of a trace.
    """
    global _recorder
    _recorder = Recorder(mmap(fd, 0))


def detach() -> None:
    """Record nothing more."""
    global _recorder
    _recorder = None


def profile(push: Callable[[str], None] | None, pop: Callable[[], None] | None) -> None:
    """Show spans to a profiler: ``push`` begins a range of this thread, ``pop`` ends it; None: no more."""
    global _push, _pop
    _push, _pop = push, pop


os.register_at_fork(after_in_child=detach)  # a forked child is another process, and not hpresil's
