"""The coordinator's journal: its settings and every event that changed its state.

Since the machine is a pure function of its events, the events are all that has to be kept: reading
them back gives the same state. A record is

    length   4 bytes, big endian: of the body
    crc      4 bytes, big endian: CRC-32 (zlib) of the body
    body     MessagePack: the first one `Opening`, all others `Entry`

Records are appended; `sync` makes them durable before a decision that follows from them is sent.
A crash can leave a torn last record: reading stops there and says so, it is no error. A damaged
record in the middle, or a foreign file, is.

What the machine ignores in frequent events (losses, digests) is not kept.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpresil.base.errors import ConfigError
from hpresil.membership.machine import Event, NodeLost, State, Tick, TookOver, begin, step
from hpresil.membership.messages import MAX_FRAME_BYTES, Committed, FromAgent, Relayed
from hpresil.membership.state import Settings, Value

_HEAD = struct.Struct(">II")
FORMAT = 1


class Opening(Value, frozen=True, kw_only=True, tag=True):
    """The first record: how the job began, or where a later coordinator took over."""

    format: int = FORMAT
    settings: Settings
    at: float
    state: State | None = None

    def begun(self) -> State:
        """Return the state that the entries change."""
        return self.state or begin(self.settings, self.at)


class Entry(Value, frozen=True, kw_only=True, tag=True):
    """An event that changed the state. ``event`` is None for a tick. ``generation``: after it."""

    at: float
    generation: int
    event: FromAgent | NodeLost | TookOver | None


class Replay(NamedTuple):
    """What a journal says. ``torn_bytes``: the length of an incomplete last record."""

    state: State
    entries: int
    torn_bytes: int


class Journal:
    """An open journal; one process writes it.

    Thread safety: `append` and `sync` may run in different threads, but not at the same time.
    """

    def __init__(self, path: Path, state: State, at: float, *, inherited: bool = False) -> None:
        """Create the file. ``inherited``: the job has begun already, under another coordinator.

        Raises:
            FileExistsError: There is one: coordinators never share a journal.
        """
        self.path = path
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._write(Opening(settings=state.settings, at=at, state=state if inherited else None))
        self.sync()
        _sync_directory(path.parent)

    def append(self, event: Event, at: float, generation: int) -> None:
        """Write an event that changed the state; durable after the next `sync`."""
        kept = None if isinstance(event, Tick) else _condensed(event)
        self._write(Entry(at=at, generation=generation, event=kept))

    def sync(self) -> None:
        """Return when everything appended so far is durable."""
        os.fdatasync(self._fd)

    def give_up(self) -> None:
        """Close it as it is, after an error; what is torn at its end is no part of it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)

    def close(self) -> None:
        """Make it durable and close it; a second call does nothing."""
        if self._fd >= 0:
            self.sync()
            os.close(self._fd)
            self._fd = -1

    def _write(self, record: Opening | Entry) -> None:
        body = msgspec.msgpack.encode(record)
        data = memoryview(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        while data:
            data = data[os.write(self._fd, data) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _condensed(event: FromAgent | NodeLost | TookOver) -> FromAgent | NodeLost | TookOver:
    """Return ``event`` without what the machine never looks at."""
    if isinstance(event, Relayed) and isinstance(event.said, Committed):
        said = Committed(
            generation=event.said.generation,
            step=event.said.step,
            loss="",
            grad_norm="",
            samples="",
            state="",
            world_size=0,
        )
        return Relayed(worker=event.worker, said=said)
    return event


class _Torn(Exception):
    """The bytes end inside a record."""


def _bodies(data: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (end offset, body) of each complete record. Raises _Torn, ConfigError."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise _Torn
        length, crc = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if length > 2 * MAX_FRAME_BYTES:
            raise ConfigError(f"{path} is no journal: record of {length} bytes at offset {at}")
        if end > len(data):
            raise _Torn
        body = data[at + _HEAD.size : end]
        if zlib.crc32(body) != crc:
            if end == len(data):
                raise _Torn
            raise ConfigError(f"{path} is damaged: wrong checksum of the record at offset {at}")
        yield end, body
        at = end


def replay(path: Path) -> Replay:
    """Return the state the journal leads to.

    Raises:
        ConfigError: The file is no journal, of another format, or damaged before its last record.
    """
    data = path.read_bytes()
    state: State | None = None
    entries, good = 0, 0
    try:
        for end, body in _bodies(data, path):
            if state is None:
                opening = _opening(body, path)
                state = opening.begun()
            else:
                entry = msgspec.msgpack.decode(body, type=Entry)
                state, _ = step(state, entry.event if entry.event is not None else Tick(), entry.at)
                entries += 1
            good = end
    except _Torn:
        pass
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no journal of this version: {error}") from error
    if state is None:
        raise ConfigError(f"{path} is no journal: it has no complete first record")
    return Replay(state, entries, len(data) - good)


def last_generation(path: Path) -> int:
    """Return the newest generation in the journal, for a later job to continue from.

    Raises:
        ConfigError: As `replay`.
    """
    first, last = b"", b""
    try:
        for _, body in _bodies(path.read_bytes(), path):
            first, last = first or body, body
    except _Torn:
        pass
    opening = _opening(first, path)
    if last == first:
        return opening.begun().generation
    try:
        return msgspec.msgpack.decode(last, type=Entry).generation
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no journal of this version: {error}") from error


def _opening(body: bytes, path: Path) -> Opening:
    if not body:
        raise ConfigError(f"{path} is no journal: it has no complete first record")
    try:
        opening = msgspec.msgpack.decode(body, type=Opening)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no journal of this version: {error}") from error
    if opening.format != FORMAT:
        raise ConfigError(f"{path} has format {opening.format}; this version reads {FORMAT}")
    return opening
