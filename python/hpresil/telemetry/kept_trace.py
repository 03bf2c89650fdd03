"""One trace on its way from the memory that a process writes to into a file of the same form."""

from __future__ import annotations

import os
from mmap import mmap
from pathlib import Path

from hpresil.base import span_ring as ring

YOUNG = 64


class KeptTrace:
    """One process's memory and its file. Only the keeper's thread copies.

    Args:
        memory: Where the process writes; closed with this object.
        path: The file.
        worker: The process's worker, -1 for an agent.
        file_spans: How many spans the file holds.
        lazy: There is no file before there is a span.
    """

    def __init__(self, memory: mmap, path: Path, worker: int, file_spans: int, *, lazy: bool = False) -> None:
        self.path, self.worker, self._lazy = path, worker, lazy
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
        if self._lazy and not written:
            return []
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
