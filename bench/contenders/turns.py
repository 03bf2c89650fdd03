"""Contenders take turns, so that a busy neighbour meets all of them: A B C, A B C."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.contenders import Contender, environment, launched
from bench.rows import BROKEN

Figures = TypeVar("Figures")
TRIES = 2
"""How often a turn is tried before it has failed."""
FINAL = (launched.Cannot, environment.Unavailable)
"""What trying again does not change."""
EXPECTED = (launched.Failed, environment.Unavailable, ValueError)
"""What a contender may fail with; anything else is a fault of the bench."""


@dataclass
class Turns(Generic[Figures]):
    """What came of it, by the names of the contenders.

    Attributes:
        taken: The figures that count; only of those that have enough of them.
        numbers: Which repeats (from 0) these are of.
        why: Why the others have none.
        notes: What is to be known of figures that count: which attempts failed, and why.
    """

    taken: dict[str, list[Figures]] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def take_turns(
    contenders: Sequence[Contender], measure: Callable[[Contender], Figures], *, repeats: int, warm_up: int
) -> Turns[Figures]:
    """Measure each ``warm_up + repeats`` times, each turn once more if it fails.

    A contender keeps its figures if at least half of the repeats have some. It is not measured any more once
    that cannot be, nor if its first turn fails, or if it says that it cannot run this at all.
    """
    turns: Turns[Figures] = Turns()
    records: dict[str, _Record[Figures]] = {contender.name: _Record() for contender in contenders}
    for turn in range(warm_up + repeats):
        for contender in contenders:
            record = records[contender.name]
            if contender.name in turns.why or _turn(record, contender, measure, turn - warm_up):
                continue
            if record.out or not record.succeeded or 2 * len(record.lost) > repeats:
                turns.why[contender.name] = record.failures[-1]
    for name, record in records.items():
        if name not in turns.why:
            turns.taken[name] = [figures for _, figures in record.figures]
            turns.numbers[name] = [number for number, _ in record.figures]
            if record.failures:
                turns.notes[name] = record.note(repeats)
    return turns


@dataclass
class _Record(Generic[Figures]):
    """What came of one contender: (repeat, figures), the repeats without any, and each failed attempt."""

    figures: list[tuple[int, Figures]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    succeeded: bool = False
    out: bool = False

    def note(self, repeats: int) -> str:
        lost = f"{len(self.lost)} of {repeats} repeats have no figure; " if self.lost else ""
        attempts = "attempt" if len(self.failures) == 1 else "attempts"
        return f"{lost}{len(self.failures)} failed {attempts}, the last: {self.failures[-1]}"


def _turn(
    record: _Record[Figures], contender: Contender, measure: Callable[[Contender], Figures], number: int
) -> bool:
    """Measure once, with a second attempt; return whether that succeeded. Repeats below 0 do not count."""
    for _ in range(TRIES):
        try:
            figures = measure(contender)
        except Exception as error:
            record.failures.append(reason(error))
            print(f"{contender.name}: {record.failures[-1]}", file=sys.stderr, flush=True)
            if not isinstance(error, EXPECTED):
                traceback.print_exception(error)
            if isinstance(error, FINAL):
                record.out = True
                break
        else:
            record.succeeded = True
            if number >= 0:
                record.figures.append((number, figures))
            return True
    if number >= 0:
        record.lost.append(number)
    return False


def reason(error: Exception) -> str:
    """Return in a line why a run failed, and where its logs are."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    if isinstance(error, EXPECTED):
        return lines[0] + notes
    return f"{BROKEN}{type(error).__name__}: {lines[0]}{notes}"
