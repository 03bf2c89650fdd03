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
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from hpresil.base import span_ring as ring, spans
from hpresil.base.errors import DataError
from hpresil.base.span_ring import Span
from hpresil.native import memfd, seal, show_spans

log = logging.getLogger(__name__)
LOOK_S = 0.25
CLOSE_S = 2.0
MEMORY_SPANS = 8192  # 512 KiB a process; at 1000 spans a second it holds 8 s
FILE_SPANS = 1 << 17  # 8 MiB a process
YOUNG = 64
SUFFIX = ".spans"
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
        self._kept: list[_Kept] = []
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hpresil-trace", daemon=True)
        self._thread.start()

    def lend(self, name: str, worker: int = -1) -> int:
        """Return a descriptor of new memory whose spans go to ``NAME.spans``; the caller closes it."""
        nbytes = ring.size(self._memory_spans)
        fd = memfd(f"hpresil-trace-{name}", nbytes)
        try:
            memory = mmap(fd, nbytes)
            offset = time.time_ns() - time.monotonic_ns()
            memory[: ring.HEADER_BYTES] = bytes(
                ring.header(
                    capacity=self._memory_spans, pid=0, worker=worker, wall_offset_ns=offset, node=self._node
                )
            )
            seal(fd, shrink=True, grow=True)
        except BaseException:
            os.close(fd)
            raise
        path = self._directory / f"{name}{SUFFIX}"
        self._kept.append(_Kept(memory, path, worker, self._file_spans))
        return fd

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

    def _copy(self, kept: _Kept) -> None:
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
    show_spans()
    return keeper


class _Kept:
    """One process's memory and its file. Only the keeper's thread copies."""

    def __init__(self, memory: mmap, path: Path, worker: int, file_spans: int) -> None:
        self.path, self.worker = path, worker
        self.over = False
        self._memory, self._file_spans = memory, file_spans
        self._capacity = ring.head(memory).capacity
        self._copied = 0
        self._seen = 0
        self._fd = -1

    def copy(self) -> list[bytes]:
        """Copy what is new; return it. Raises OSError, and is as before then."""
        over = self.over
        (written,) = ring.COUNT.unpack_from(self._memory, ring.WRITTEN_AT)
        # Some processors let others see a count before what it counts, for nanoseconds: the newest few have
        # to wait for the next look, unless they are as old as the last one or their writer has ended.
        until = written if over or written == self._seen else max(self._seen, written - YOUNG)
        self._seen = written
        head = bytearray(self._memory[: ring.HEADER_BYTES])
        pieces = self._pieces(max(self._copied, written - self._capacity), until)
        if not over:
            (later,) = ring.COUNT.unpack_from(self._memory, ring.WRITTEN_AT)
            pieces = [_without(piece, later - self._capacity) for piece in pieces]
        self._open(head)
        for first, piece in pieces:
            self._write(first, piece)
        done = max(until, self._copied)
        self._write_head(head, done)
        self._copied = done
        return [piece for _, piece in pieces]

    def close(self) -> None:
        """Give the memory and the file back."""
        self._memory.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, head: bytearray) -> None:
        """Make the file with an empty trace: whatever is killed from here on, it can be read."""
        if self._fd < 0:
            self.path.parent.mkdir(exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._write_head(head, 0)

    def _write_head(self, head: bytearray, written: int) -> None:
        ring.COUNT.pack_into(head, ring.CAPACITY_AT, self._file_spans)
        ring.COUNT.pack_into(head, ring.WRITTEN_AT, written)
        _write_all(self._fd, head, 0)

    def _pieces(self, first: int, until: int) -> list[tuple[int, bytes]]:
        """Return the records from ``first`` to ``until`` as contiguous pieces of memory."""
        pieces = []
        while first < until:
            place = first % self._capacity
            count = min(until - first, self._capacity - place)
            start = ring.HEADER_BYTES + place * ring.RECORD_BYTES
            pieces.append((first, self._memory[start : start + count * ring.RECORD_BYTES]))
            first += count
        return pieces

    def _write(self, first: int, piece: bytes) -> None:
        count = len(piece) // ring.RECORD_BYTES
        done = max(0, count - self._file_spans)
        while done < count:
            place = (first + done) % self._file_spans
            more = min(count - done, self._file_spans - place)
            part = memoryview(piece)[done * ring.RECORD_BYTES : (done + more) * ring.RECORD_BYTES]
            _write_all(self._fd, part, ring.HEADER_BYTES + place * ring.RECORD_BYTES)
            done += more


def _without(piece: tuple[int, bytes], newest: int) -> tuple[int, bytes]:
    """Return the piece without the spans up to ``newest``, which were overwritten while they were copied."""
    first, data = piece
    drop = max(0, newest + 1 - first)
    return first + drop, data[drop * ring.RECORD_BYTES :]


def _write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


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
    """Read one file of spans.

    Raises:
        DataError: It is no such file.
    """
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
        try:
            found.append(read(path))
        except DataError as error:
            log.warning("%s", error)
    return sorted(found, key=lambda trace: (trace.worker, trace.name))
