"""The traces of a job: the memory that a node's processes write spans to, and the files it ends up in.

The agent lends each of its processes, itself included, a small memory file (`TraceKeeper.lend`). A thread of
the agent copies what is new in them to ``RUN_DIR/trace/NAME.spans`` four times a second, and everything once
a process has ended. So a process that records never waits for a disk, its death loses nothing, the agent's
death loses what was recorded since the last look, and both memory and files have a fixed size.

A file that cannot be written (full disk, no permission) is tried again at the next look; what was
overwritten in memory meanwhile is missing from it, and nothing else happens: a job does not end because its
trace cannot be kept.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path

from hpresil.base import span_ring as ring, spans
from hpresil.base.errors import DataError
from hpresil.base.span_ring import Span
from hpresil.native import attach_spans, memfd, seal, show_spans
from hpresil.telemetry.kept_trace import KeptTrace

log = logging.getLogger(__name__)
LOOK_S = 0.25
CLOSE_S = 2.0
MEMORY_SPANS = 8192  # 512 KiB a process; at 1000 spans a second it holds 8 s
NATIVE_SPANS = 2048  # 128 KiB a process for those of native code
FILE_SPANS = 1 << 17  # 8 MiB a process
SUFFIX = ".spans"
NATIVE = ".native"
"""Ends the name of a process whose spans these are, as far as native code wrote them."""
DATA = b"data".ljust(ring.NAME_BYTES, b"\0")

OnData = Callable[[int, int, float], None]
"""Called with (worker, step, seconds) for each wait for data; on the keeper's thread."""


class TraceKeeper:
    """Lends memory for spans and keeps what is written there.

    Args:
        directory: Where the files go; made when it is needed.
        node: The name of this node.
        memory_spans: How many spans a process may write between two looks.
        file_spans: How many spans a file holds; the oldest are overwritten.

    Attributes:
        tell: Told once, for people, when a file cannot be written; on the keeper's thread.
    """

    def __init__(
        self, directory: Path, node: str, *, memory_spans: int = MEMORY_SPANS, file_spans: int = FILE_SPANS
    ) -> None:
        self._directory, self._node = directory, node
        self._memory_spans, self._file_spans = memory_spans, file_spans
        self.on_data: OnData | None = None
        self.tell: Callable[[str], None] = log.warning
        self.unwritten = 0
        self._kept: list[KeptTrace] = []
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hpresil-trace", daemon=True)
        self._thread.start()

    def lend(self, name: str, worker: int = -1) -> int:
        """Return a descriptor of new memory whose spans go to ``NAME.spans``; the caller closes it."""
        first = ring.size(self._memory_spans)
        fd = memfd(f"hpresil-trace-{name}", first + ring.size(NATIVE_SPANS))
        try:
            parts = [
                self._part(fd, 0, self._memory_spans, name, worker),
                self._part(fd, first, NATIVE_SPANS, name + NATIVE, worker),
            ]
            seal(fd, shrink=True, grow=True)
        except BaseException:
            os.close(fd)
            raise
        self._kept += parts
        return fd

    def _part(self, fd: int, start: int, capacity: int, name: str, worker: int) -> KeptTrace:
        """Make an empty trace at ``start``, a multiple of a page."""
        memory = mmap(fd, ring.size(capacity), offset=start)
        offset = time.time_ns() - time.monotonic_ns()
        memory[: ring.HEADER_BYTES] = bytes(
            ring.header(capacity=capacity, pid=0, worker=worker, wall_offset_ns=offset, node=self._node)
        )
        return KeptTrace(
            memory, self._directory / f"{name}{SUFFIX}", worker, self._file_spans, lazy=name.endswith(NATIVE)
        )

    @contextmanager
    def lent(self, name: str, worker: int) -> Iterator[int]:
        """Lend the memory's descriptor to the block, in which a process inherits it."""
        fd = self.lend(name, worker)
        try:
            yield fd
        finally:
            os.close(fd)

    def ended(self, worker: int) -> None:
        """The worker's process is reaped: copy the rest soon, and give its memory back."""
        for kept in self._kept:
            if kept.worker == worker:
                kept.over = True
        self._wake.set()

    def close(self) -> None:
        """Copy what is left, for two seconds at most: a slow disk does not hold up the end of a job."""
        for kept in self._kept:
            kept.over = True
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_S)
            self._wake.clear()
            closing = self._closing
            for kept in list(self._kept):
                over = kept.over
                self._copy(kept)
                if over or closing:
                    self._kept.remove(kept)
                    kept.close()
            if closing:
                return

    def _copy(self, kept: KeptTrace) -> None:
        try:
            copied = kept.copy()
        except OSError as error:
            self.unwritten += 1
            if self.unwritten == 1:
                self.tell(f"{kept.path} cannot be written ({error.strerror}); its trace may lack spans")
            return
        if self.on_data is not None and kept.worker >= 0:
            for piece in copied:
                for span in map(Span._make, ring.RECORD.iter_unpack(piece)):
                    if span.raw_name == DATA and span.begin_ns:
                        self.on_data(kept.worker, span.step, (span.end_ns - span.begin_ns) / 1e9)


def keep(directory: Path, node: str, tell: Callable[[str], None] = log.warning) -> TraceKeeper:
    """Return a keeper of the node's traces, that of this process among them."""
    keeper = TraceKeeper(directory, node)
    keeper.tell = tell
    name = "agent-" + re.sub(r"[^A-Za-z0-9._-]", "_", node)
    with keeper.lent(name, -1) as fd:
        spans.attach(fd)
        attach_spans(fd)
    show_spans()
    return keeper


@dataclass(frozen=True)
class Trace:
    """The spans of one process. ``open``: those it had begun and not ended when it was last looked at."""

    name: str
    head: ring.Head
    spans: tuple[Span, ...]
    open: tuple[Span, ...]

    @property
    def worker(self) -> int:
        """The worker's id, -1 for an agent."""
        return self.head.worker

    @property
    def lost(self) -> int:
        """How many spans are no longer there: older than the file holds, or not copied in time."""
        return self.head.written - len(self.spans)


def read(path: Path) -> Trace:
    """Read one process's file of spans, and that of its native code beside it if there is one.

    Raises:
        DataError: It is no such file.
    """
    beside = path.with_name(path.name.removesuffix(SUFFIX) + NATIVE + SUFFIX)
    trace = _read_one(path)
    return _with_native(trace, _read_one(beside)) if beside.exists() else trace


def _read_one(path: Path) -> Trace:
    try:
        data = path.read_bytes()
        ended = tuple(ring.spans(data))
        known = {
            (span.track, span.begin_ns, span.raw_name) for span in ended[-2 * ring.TRACKS * ring.DEPTH :]
        }
        # Killed between the two writes of its end, a span is in both places.
        opened = (s for s in ring.open_spans(data) if (s.track, s.begin_ns, s.raw_name) not in known)
        return Trace(path.name.removesuffix(SUFFIX), ring.head(data), ended, tuple(opened))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no file of spans: {error}") from error


def read_all(run_dir: Path) -> list[Trace]:
    """Return the traces of a run directory, agents first; an unreadable one is logged and left out."""
    return _read_matching(run_dir, "trace")


def read_nodes(run_dir: Path) -> list[Trace]:
    """Return what other nodes left if they share the directory, in earlier lives and jobs as well."""
    return _read_matching(run_dir, "nodes/*/trace", "nodes/*/earlier/*/trace")


def _read_matching(run_dir: Path, *directories: str) -> list[Trace]:
    found = []
    for path in sorted(path for pattern in directories for path in run_dir.glob(f"{pattern}/*{SUFFIX}")):
        if path.name.endswith(NATIVE + SUFFIX):
            continue  # read with the process's other spans
        try:
            found.append(read(path))
        except DataError as error:
            log.warning("%s", error)
    return sorted(found, key=lambda trace: (trace.worker, trace.name))


def _with_native(trace: Trace, native: Trace) -> Trace:
    """Return the trace of the whole process: what its native code wrote becomes more tracks."""
    moved = tuple(span._replace(track=span.track + ring.TRACKS) for span in native.spans)
    written = trace.head.written + native.head.written
    head = replace(trace.head, written=written, tracks=trace.head.tracks + native.head.tracks)
    return Trace(trace.name, head, trace.spans + moved, trace.open)
