"""Writes the record of a job as its workers report, and stops a job whose workers disagree.

Problem: a worker that computes other bits than the rest has to stop the job at once, not after a week;
and whatever faults happen, the record holds every step once, in order, without a gap.

Design: the agent hands every worker's `Committed` to a `Recorder`. The first report of a step is written;
a later one must agree with it in loss, gradient norm, samples and, where both have it, state. Lines
written long ago are read back from the file, so steps that are made again after a fall-back are checked
too.

With the backend's own reduction (``native``) a step that is made again by another group has other
rounding errors. Its samples must agree all the same; else the later generation is right, since what the
earlier one computed lives on in nobody: the line is replaced, and what the earlier one had written after
it is cut off. Within one generation everything must agree as always.

Not guaranteed: lines are handed to the kernel one by one, but fsynced at `close` only; after a power
failure the record may lack its end. Not thread safe.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from hpresil.base.errors import DataError, Divergence
from hpresil.membership.messages import Committed
from hpresil.telemetry import record
from hpresil.telemetry.record import Line

RECENT_STEPS = EARLY_STEPS = 1024
LINE_BEGIN = b'{"step":'

Report = tuple[Line, int | None]
"""A line and the worker that reported it; None: an older one that was read from the file."""


class Recorder:
    """Writes the record of one job, and refuses reports that contradict it.

    Args:
        path: The file to write. An older record there is replaced unless ``resume_at`` is positive;
            a file that is no record is never touched. None keeps the newest steps in memory only, to
            check later reports against.
        resume_at: The first step that the job will make. An existing record is continued and must
            reach step ``resume_at - 1``; later lines stay, and what the job repeats is checked against
            them. A truncated last line is cut off. Where there is none, the record begins at this step, or,
            for -1, at whatever comes first.

    Raises:
        DataError: The existing file is no record, or does not reach ``resume_at - 1``, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, resume_at: int = 0) -> None:
        self.path = None if path is None else Path(path)
        self.first_step = self.next_step = resume_at
        self._offsets = array("Q")  # where the line of step first_step + i begins
        self._bytes = 0
        self._recent: dict[int, Report] = {}
        self._early: dict[int, Report] = {}
        self._fd = -1
        if self.path is not None:
            try:
                self._open(self.path)
            except OSError as error:
                raise DataError(f"cannot write the record {self.path}: {error.strerror}") from error

    def add(self, worker: int, committed: Committed, now: float) -> bool:
        """Take one worker's report of a committed step.

        Args:
            worker: Who reports.
            committed: The report.
            now: The time to write, in seconds.

        Returns:
            Whether this is the first report of the step.

        Raises:
            Divergence: An earlier report of the step differs; nothing is written.
            DataError: The record cannot be written.
        """
        line = Line(
            step=committed.step,
            loss=committed.loss,
            grad_norm=committed.grad_norm,
            state=committed.state,
            samples=committed.samples,
            generation=committed.generation,
            world_size=committed.world_size,
            time=round(now, 6),
        )
        if self.next_step < 0:
            self.first_step = self.next_step = line.step
        earlier = self._earlier(line.step)
        if earlier is not None:
            alike = committed.repeatable or line.generation == earlier[0].generation
            _check(earlier, line, worker, record.COMPARED if alike else ("samples",))
            if alike or line.generation < earlier[0].generation:
                return False
            self._forget(line)
        elif line.step < self.next_step:
            return False  # older than what is remembered without a file
        # A report can overtake the one before it, since each worker has a connection of its own.
        self._early[line.step] = (line, worker)
        if len(self._early) > EARLY_STEPS:
            raise DataError(f"nobody reported step {self.next_step}, but {len(self._early)} later steps")
        while self.next_step in self._early:
            self._write(*self._early.pop(self.next_step))
        return earlier is None

    def close(self) -> None:
        """Make the record durable and close it; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _forget(self, line: Line) -> None:
        """Take away what generations before that of ``line`` reported of its step and of later ones."""
        known = {step: self._earlier(step) for step in range(line.step, self.next_step)} | self._early
        place = line.step - self.first_step
        if self.path is not None and place < len(self._offsets):
            self._bytes = self._offsets[place]
            del self._offsets[place:]
            os.ftruncate(self._fd, self._bytes)
        for step in range(line.step, self.next_step):
            self._recent.pop(step, None)
        self.next_step = min(self.next_step, line.step)
        later = [held for held in known.values() if held and held[0].step > line.step]
        kept = [held for held in later if held[0].generation >= line.generation]
        before = {step: held for step, held in self._early.items() if step < line.step}
        self._early = before | {held[0].step: held for held in kept}

    def _earlier(self, step: int) -> Report | None:
        held = self._early.get(step) or self._recent.get(step)
        place = step - self.first_step
        if held is not None or self.path is None or not 0 <= place < len(self._offsets):
            return held
        end = self._offsets[place + 1] if place + 1 < len(self._offsets) else self._bytes
        raw = os.pread(self._fd, end - self._offsets[place], self._offsets[place])
        return record.parse(raw, f"{self.path}, step {step}"), None

    def _write(self, line: Line, worker: int | None) -> None:
        raw = msgspec.json.encode(line) + b"\n"
        if self.path is not None:
            try:
                _write_all(self._fd, raw, self._bytes)
            except OSError as error:
                if self._fd >= 0:
                    os.ftruncate(self._fd, self._bytes)
                why = f"cannot write step {line.step} to the record {self.path}: {error.strerror}"
                raise DataError(f"{why}; make room there") from error
            self._offsets.append(self._bytes)
        self._bytes += len(raw)
        self._recent[line.step] = (line, worker)
        self._recent.pop(line.step - RECENT_STEPS, None)
        self.next_step = line.step + 1

    def _open(self, path: Path) -> None:
        """Keep what a continued job needs of an existing record and cut off the rest."""
        try:
            with open(path, "rb") as file:
                if self.first_step > 0:
                    self._index(path, file)
                elif first := file.readline():
                    record.parse(first, f"{path}, line 1")
        except FileNotFoundError:
            pass
        except DataError as error:
            raise DataError(f"{error}; choose another file for the record, or remove this one") from error
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, self._bytes)

    def _index(self, path: Path, file: Iterable[bytes]) -> None:
        resume_at = self.first_step
        steps = [line.step for line in record.in_order(path, self._whole(file))]
        if not steps:
            return
        if not steps[0] <= resume_at <= steps[-1] + 1:
            raise DataError(
                f"{path} holds steps {steps[0]} to {steps[-1]} and cannot be continued at step {resume_at}"
            )
        self.first_step, self.next_step = steps[0], steps[-1] + 1

    def _whole(self, file: Iterable[bytes]) -> Iterator[bytes]:
        for raw in file:
            # The writer may have been killed in its last line; what does not begin like one is foreign.
            if raw.endswith(b"\n") or not raw.startswith(LINE_BEGIN[: len(raw)]):
                self._offsets.append(self._bytes)
                self._bytes += len(raw)
                yield raw


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _check(earlier: Report, later: Line, worker: int, fields: tuple[str, ...]) -> None:
    line, first_worker = earlier
    if field := record.differing(line, later, fields):
        one, other = (record.show(field, getattr(report, field)) for report in (line, later))
        first = "the record" if first_worker is None else f"worker {first_worker}"
        raise Divergence(
            f"step {line.step}: {field} is {one} by {first} (generation {line.generation}) but {other} by "
            f"worker {worker} (generation {later.generation}); one of them computes other bits: look for "
            f"code that depends on the rank, the time or unseeded randomness, and for differing libraries "
            f"or hardware"
        )
