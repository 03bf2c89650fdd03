"""What happened in a job, one JSON line each: `events.jsonl` in the run directory.

A line has ``t`` (monotonic seconds of the agent's machine), ``wall`` (Unix seconds), ``event`` (its name) and
the fields of that event:

    JobStarted      run_id, workers, spares, min_workers, command
    WorkerStarted   worker, index, pid, spare
    WorkerReady     worker, pristine                 (a spare is ready with pristine = false)
    WorkerLost      worker, rank, reason, status, step, slot, armed, last_stamp, why
    WorkerLeft      worker, status                   (it had been released, or the job had ended)
    NodeJoined      node, pid, address
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
    DrainRequested  why
    JobEnded        status, reason, worker, step, slot, saved

Names are past participles. Lines are written at once and in the order of their times; a crash of the machine
may cost the last ones, and a full disk any of them: a job does not end because its story cannot be told.
Readers must accept events and fields they do not know.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
Event = dict[str, Any]


class EventLog:
    """Appends events to a file.

    Args:
        path: The file; created if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.unwritten = 0

    def add(self, event: str, **fields: Any) -> Event:
        """Write one event and return it as it was written."""
        line: Event = {"t": time.monotonic(), "wall": time.time(), "event": event, **fields}
        if self._fd >= 0:
            self.write(line)
        return line

    def write(self, line: Event) -> None:
        """Write any line; one that cannot be written is counted, and the first is logged."""
        try:
            os.write(self._fd, json.dumps(line).encode() + b"\n")
        except OSError as error:
            self.unwritten += 1
            if self.unwritten == 1:
                log.warning("%s cannot be written: %s", self._path, error)

    def close(self) -> None:
        """Close the file; later events are returned and not written."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def read(path: Path) -> list[Event]:
    """Return all complete events of the file."""
    return list(parse(path.read_bytes()))


def parse(data: bytes) -> Iterator[Event]:
    """Yield the events of all whole lines in ``data``."""
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:  # torn by a full disk
                continue
