"""The record of a job: one JSON line for every committed step, and the comparison of two records.

Problem: "no fault shows in the loss" has to be checkable after the fact, bit for bit.

Design: one line for every step, in the order of steps, without gap or repeat whatever faults happened;
`hpresil.telemetry.recorder` writes it.

    {"step", "loss", "grad_norm", "state", "samples", "generation", "world_size", "time"}

Floats are ``float.hex()`` strings: nothing is rounded. Generation, world size and time are never compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import msgspec

from hpresil.base.errors import DataError

COMPARED = ("loss", "grad_norm", "samples", "state")


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


def differing(a: Line, b: Line, fields: tuple[str, ...] = COMPARED) -> str | None:
    """Return the first of ``fields`` in which two lines of one step differ; a missing state equals any."""
    for field in fields:
        values = getattr(a, field), getattr(b, field)
        if values[0] != values[1] and (field != "state" or all(values)):
            return field
    return None


_decoder = msgspec.json.Decoder(Line)


def parse(raw: bytes, where: str) -> Line:
    """Return the line that ``raw`` is, newline included.

    Raises:
        DataError: It is no whole line of a record; ``where`` begins the message.
    """
    if not raw.endswith(b"\n"):
        raise DataError(f"{where}: the record is truncated in this line")
    try:
        line = _decoder.decode(raw)
        float.fromhex(line.loss), float.fromhex(line.grad_norm)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: not a line of a record ({error})") from error
    return line


def in_order(path: str | os.PathLike[str], file: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines of ``file``, named ``path`` in errors.

    Raises:
        DataError: A line is truncated, foreign, repeated or missing.
    """
    last: int | None = None
    for number, raw in enumerate(file, 1):
        line = parse(raw, f"{path}, line {number}")
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
            yield from in_order(path, file)
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
