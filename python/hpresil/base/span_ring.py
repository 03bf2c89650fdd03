"""The form of a trace: where one process keeps its newest spans, in memory and in a file alike.

A header of 4096 bytes, then ``capacity`` records of 64 bytes; span number *n* lies at place ``n % capacity``,
so a trace never grows beyond its size and always holds the newest. The header holds the count of all spans
ever written, the names of the threads (*tracks*), and a table of the spans that are *open*: begun and not
ended. If the process is killed, that table says what it was doing.

`docs/formats.md` has the layout byte by byte. Everything here works on plain memory: no clock, no file.

Not guaranteed: who looks at memory that is being written may see the newest record or an entry of the open
table half written. Readers of live memory therefore leave the newest records for later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

MAGIC = b"hpresilT"
FORMAT = 1
HEAD = struct.Struct("<8sIIQQqqq")  # magic, format, record bytes, capacity, written, pid, worker, wall offset
COUNT = struct.Struct("@Q")  # native, so that the eight bytes are stored and read at once
CAPACITY_AT, WRITTEN_AT, PID_AT = 16, 24, 32
NODE_AT, NODE_BYTES = 64, 128
TRACKS_AT, TRACK_BYTES = 256, 32
OPEN_AT = 512
TRACKS, DEPTH = 8, 7
HEADER_BYTES = 4096

RECORD = struct.Struct(
    "@QQQqiiiBBH16s"
)  # native for speed; the layout is that of "<" on the machines there are
RECORD_BYTES = RECORD.size
BEGIN_AT = 8  # of begin_ns, in a record
NAME_BYTES = 16
OVERLAPPING = 1
"""A flag of spans that may overlap others of their track: waits of an event loop's tasks."""

Memory = mmap | bytearray | memoryview | bytes


class Span(NamedTuple):
    """One record. Times in nanoseconds of CLOCK_MONOTONIC; ``end_ns`` 0: the span is open.

    ``step`` and ``slot`` are -1 and ``generation`` 0 where they mean nothing; ``value`` is a number of the
    span's own (bytes moved, the worker concerned). ``track`` is the index of the thread.
    """

    number: int
    begin_ns: int
    end_ns: int
    value: int
    step: int
    generation: int
    slot: int
    track: int
    flags: int
    reserved: int
    raw_name: bytes

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.raw_name.rstrip(b"\0").decode("ascii", "replace")


@dataclass(frozen=True)
class Head:
    """What the header says. ``wall_offset_ns``: Unix time minus CLOCK_MONOTONIC when the trace was made."""

    capacity: int
    written: int
    pid: int
    worker: int
    wall_offset_ns: int
    node: str
    tracks: tuple[str, ...]


def size(capacity: int) -> int:
    """Return the bytes of a trace of ``capacity`` spans."""
    return HEADER_BYTES + capacity * RECORD_BYTES


def header(*, capacity: int, pid: int, worker: int, wall_offset_ns: int, node: str) -> bytearray:
    """Return the header of an empty trace; ``worker`` is -1 for an agent."""
    made = bytearray(HEADER_BYTES)
    HEAD.pack_into(made, 0, MAGIC, FORMAT, RECORD_BYTES, capacity, 0, pid, worker, wall_offset_ns)
    encoded = node.encode(errors="replace")[:NODE_BYTES]
    made[NODE_AT : NODE_AT + len(encoded)] = encoded
    return made


def head(memory: Memory) -> Head:
    """Read the header.

    Raises:
        ValueError: It is not the header of a trace that this version knows.
    """
    if len(memory) < HEADER_BYTES:
        raise ValueError(f"{len(memory)} bytes are too few for a trace")
    magic, form, record_bytes, capacity, written, pid, worker, offset = HEAD.unpack_from(memory, 0)
    if magic != MAGIC or form != FORMAT or record_bytes != RECORD_BYTES or not capacity:
        raise ValueError("it does not begin like a trace of this version of hpresil")
    tracks = tuple(_text(memory, TRACKS_AT + i * TRACK_BYTES, TRACK_BYTES) for i in range(TRACKS))
    return Head(capacity, written, pid, worker, offset, _text(memory, NODE_AT, NODE_BYTES), tracks)


def open_spans(memory: Memory) -> Iterator[Span]:
    """Yield the spans that are open, outer ones first."""
    for place in range(TRACKS * DEPTH):
        span = Span(*RECORD.unpack_from(memory, OPEN_AT + place * RECORD_BYTES))
        # The name is written last: without one, the process was killed while it wrote this entry.
        if span.begin_ns and span.name:
            yield span


def spans(memory: Memory) -> Iterator[Span]:
    """Yield the spans that ended, in the order of their ends; a place with another number is left out."""
    found = head(memory)
    there = (len(memory) - HEADER_BYTES) // RECORD_BYTES
    for number in range(max(0, found.written - found.capacity), found.written):
        place = number % found.capacity
        if place < there:
            span = Span(*RECORD.unpack_from(memory, HEADER_BYTES + place * RECORD_BYTES))
            if span.number == number and span.begin_ns:
                yield span


def _text(memory: Memory, start: int, length: int) -> str:
    return bytes(memory[start : start + length]).rstrip(b"\0").decode(errors="replace")
