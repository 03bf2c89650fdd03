"""What happened in a job, one JSON line each: `events.jsonl` in the run directory.

A line has ``t`` (monotonic seconds of the coordinator's machine), ``wall`` (Unix seconds), ``event`` (its
name) and the fields of that event:

    JobStarted      run_id, workers, spares, min_workers, command
    WorkerStarted   worker, index, pid, spare
    WorkerReady     worker, pristine                 (a spare is ready with pristine = false)
    WorkerLost      worker, rank, reason, status, step, slot, armed, last_stamp, why, stacks
    WorkerLeft      worker, status                   (it had been released, or the job had ended)
    NodeJoined      node, pid, address               (of its agent; a node beside the coordinator's)
    NodeLost        node, workers, why
    NodeDraining    node, workers                    (its workers are to leave)
    NodeDrained     node, agent_stays                (they have left)
    NodeDrainGivenUp  node                           (the job needs it)
    ResizeRequested workers, before
    Resized         workers, members                 (the full group has the size that was asked for)
    SlotFailed      worker, step, slot, kind, error, retry
    ViewInstalled   generation, members              (members[rank] = worker)
    Decided         generation, target, sources, slots, initial, finished
    GroupBuilt      generation, worker
    FrameSealed     version, frame, frame_bytes, worker
    Restored        generation, worker, version, bytes
    StepCommitted   step, generation, world_size, loss, worker   (the first report of a step)
    StepCompleted   step, generation                 (every member of that generation reported it)
    Suspected       worker, why, spared              (a hang that was reported and not punished)
    Saved           worker, version, path, error
    CoordinatorMoved  node, was, term                (another node's agent has taken over)
    Suspended       why                              (cut off from most nodes: nothing is committed)
    Resumed
    DrainRequested  why
    ClockCompared   node, pid, offset_s              (see `clocks`)
    JobEnded        status, reason, worker, step, slot, saved

Names are past participles. Lines are written at once and in the order of their times; a crash of the machine
may cost the last ones, and a full disk any of them: a job does not end because its story cannot be told.
Readers must accept events and fields they do not know.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
Event = dict[str, Any]


class EventLog:
    """Appends events to a file.

    Args:
        path: The file; created if it is not there.
        tell: Told, for people, when the file cannot be written, and when it can again.
        shift_s: What to add to this machine's monotonic clock, so that all times are of one clock.
    """

    def __init__(self, path: Path, tell: Callable[[str], None] = log.warning, shift_s: float = 0.0) -> None:
        self._path, self._tell, self._shift_s = path, tell, shift_s
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._missing = 0
        self.unwritten = 0

    def add(self, event: str, **fields: Any) -> Event:
        """Write one event and return it as it was written."""
        line: Event = {"t": time.monotonic() + self._shift_s, "wall": time.time(), "event": event, **fields}
        if self._fd >= 0:
            self.write(line)
        return line

    def write(self, line: Event) -> None:
        """Write any line whole; one that cannot be written is counted, and somebody is told once."""
        try:
            self._append(json.dumps(line).encode() + b"\n")
        except OSError as error:
            self.unwritten += 1
            self._missing += 1
            if self._missing == 1:
                what = f"{self._path} cannot be written ({error.strerror})"
                self._tell(f"{what}: the job goes on, its lines are missing until it can be")
            return
        if self._missing:
            self._tell(f"{self._path} can be written again; {self._missing} lines are missing there")
            self._missing = 0

    def close(self) -> None:
        """Close the file; later events are returned and not written."""
        if self._fd >= 0:
            os.close(self._fd)
            if self._missing:
                self._tell(f"{self._missing} lines are missing at the end of {self._path}")
        self._fd = -1

    def _append(self, raw: bytes) -> None:
        written = os.write(self._fd, raw)
        if written == len(raw):
            return
        try:
            written += os.write(self._fd, raw[written:])  # says what is wrong
        finally:
            if written < len(raw):  # the next line must not be glued to half of this one
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        if written < len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: Path) -> list[Event]:
    """Return all complete events of the file."""
    return list(parse(path.read_bytes()))


def last_events(path: Path, most_bytes: int) -> list[Event]:
    """Return the complete events at the end of the file, none if there is no file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            return list(parse(file.read()))
    except FileNotFoundError:
        return []


def parse(data: bytes) -> Iterator[Event]:
    """Yield the events of all whole lines in ``data``."""
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:  # torn by a full disk, or the file was read from the middle of a line
                continue
