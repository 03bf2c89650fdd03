"""The record of a job: one JSON line for every committed step, and the comparison of two records.

Problem: "no fault shows in the loss" has to be checkable after the fact, bit for bit, and a worker that
computes other bits than the rest has to stop the job at once, not after a week.

Design: the agent hands every worker's `Committed` to a `Recorder`. The first report of a step is
written as one line, in the order of steps, without gap or repeat whatever faults happen; a later one
must agree with it in loss, gradient norm, samples and, where both have it, state. Lines written long ago
are read back from the file, so steps that are made again after a fall-back are checked too.

    {"step", "loss", "grad_norm", "state", "samples", "generation", "world_size", "time"}

Floats are ``float.hex()`` strings: nothing is rounded. Generation, world size and time are never compared.

Not guaranteed: lines are handed to the kernel one by one, but fsynced at `close` only; after a power
failure the record may lack its end. Not thread safe.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec

from hpresil.base.errors import DataError, Divergence
from hpresil.membership.messages import Committed

COMPARED = ("loss", "grad_norm", "samples", "state")
RECENT_STEPS = EARLY_STEPS = 1024
LINE_BEGIN = b'{"step":'


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One committed step as it stands in the record; the fields are those of `Committed`."""

    step: int
    loss: str
    grad_norm: str
    state: str
    samples: str
    generation: int
    world_size: int
    time: float


@dataclass(frozen=True)
class Difference:
    """The first difference of two records.

    Attributes:
        step: The step at which they differ.
        field: "loss", "grad_norm", "samples", "state", or "step" where one has no such step.
        a: The first record's value, None if it has no such step.
        b: The second record's value, likewise.
    """

    step: int
    field: str
    a: str | None
    b: str | None

    def __str__(self) -> str:
        return f"step {self.step}: {self.field} is {show(self.field, self.a)} and {show(self.field, self.b)}"


def show(field: str, value: str | None) -> str:
    """Return ``value`` for people: floats in hex and in decimal."""
    if value is None:
        return "missing"
    return f"{value} ({float.fromhex(value)!r})" if field in ("loss", "grad_norm") else value


def differing(a: Line, b: Line) -> str | None:
    """Return the first compared field in which two lines of one step differ."""
    for field in COMPARED:
        values = getattr(a, field), getattr(b, field)
        if values[0] != values[1] and (field != "state" or all(values)):
            return field
    return None


_decoder = msgspec.json.Decoder(Line)


def _parse(raw: bytes, where: str) -> Line:
    if not raw.endswith(b"\n"):
        raise DataError(f"{where}: the record is truncated in this line")
    try:
        line = _decoder.decode(raw)
        float.fromhex(line.loss), float.fromhex(line.grad_norm)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: not a line of a record ({error})") from error
    return line


def _lines(path: str | os.PathLike[str], file: Iterable[bytes]) -> Iterator[Line]:
    last: int | None = None
    for number, raw in enumerate(file, 1):
        line = _parse(raw, f"{path}, line {number}")
        if last is not None and line.step != last + 1:
            what = "is repeated or out of order" if line.step <= last else "leaves a gap"
            raise DataError(f"{path}, line {number}: step {line.step} after step {last} {what}")
        last = line.step
        yield line


def read(path: str | os.PathLike[str]) -> Iterator[Line]:
    """Yield the steps of the record at ``path``, checking that each follows the one before.

    Raises:
        DataError: The file cannot be read, or a line is truncated, foreign, repeated or missing; the
            message names the line.
    """
    try:
        with open(path, "rb") as file:
            yield from _lines(path, file)
    except OSError as error:
        raise DataError(f"cannot read the record {path}: {error.strerror}") from error


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Difference | None:
    """Return the first difference of two records, None if they are equal.

    Raises:
        DataError: A file is no readable record, or holds no step.
    """
    for path in (a, b):
        if next(read(path), None) is None:
            raise DataError(f"{path} is empty: a record has at least one step")
    for left, right in zip_longest(read(a), read(b)):
        step = min(line.step for line in (left, right) if line is not None)
        shown = [str(step) if line is not None and line.step == step else None for line in (left, right)]
        if None in shown:
            return Difference(step, "step", *shown)
        if field := differing(left, right):
            return Difference(step, field, getattr(left, field), getattr(right, field))
    return None


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
        self._recent: dict[int, tuple[Line, int | None]] = {}
        self._early: dict[int, tuple[Line, int]] = {}
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
            _check(earlier, line, worker)
            return False
        if line.step < self.next_step:
            return False  # older than what is remembered without a file
        # A report can overtake the one before it, since each worker has a connection of its own.
        self._early[line.step] = (line, worker)
        if len(self._early) > EARLY_STEPS:
            raise DataError(f"nobody reported step {self.next_step}, but {len(self._early)} later steps")
        while self.next_step in self._early:
            self._write(*self._early.pop(self.next_step))
        return True

    def close(self) -> None:
        """Make the record durable and close it; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _earlier(self, step: int) -> tuple[Line, int | None] | None:
        held = self._early.get(step) or self._recent.get(step)
        place = step - self.first_step
        if held is not None or self.path is None or not 0 <= place < len(self._offsets):
            return held
        end = self._offsets[place + 1] if place + 1 < len(self._offsets) else self._bytes
        raw = os.pread(self._fd, end - self._offsets[place], self._offsets[place])
        return _parse(raw, f"{self.path}, step {step}"), None

    def _write(self, line: Line, worker: int) -> None:
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
                    _parse(first, f"{path}, line 1")
        except FileNotFoundError:
            pass
        except DataError as error:
            raise DataError(f"{error}; choose another file for the record, or remove this one") from error
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, self._bytes)

    def _index(self, path: Path, file: Iterable[bytes]) -> None:
        resume_at = self.first_step
        steps = [line.step for line in _lines(path, self._whole(file))]
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


def _check(earlier: tuple[Line, int | None], later: Line, worker: int) -> None:
    line, first_worker = earlier
    if field := differing(line, later):
        first = "the record" if first_worker is None else f"worker {first_worker}"
        raise Divergence(
            f"step {line.step}: {field} is {show(field, getattr(line, field))} by {first} (generation "
            f"{line.generation}) but {show(field, getattr(later, field))} by worker {worker} (generation "
            f"{later.generation}); one of them computes other bits: look for code that depends on the "
            f"rank, the time or unseeded randomness, and for differing libraries or hardware"
        )
