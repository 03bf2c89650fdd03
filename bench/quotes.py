"""`python -m bench quotes [--check]`: figures in README.md and docs/ are quoted from results files.

A quoted figure stands on one line between two comments, also inside of a table; nobody writes it by hand:

    <!-- quote FILE; SUITE; CASE; CONTENDER; METRIC; FORMAT -->412 ms<!-- /quote -->
    <!-- quote FILE; SUITE; CASE; CONTENDER; METRIC; min; FORMAT -->398 ms<!-- /quote -->

FILE is one of bench/results; SUITE and CASE of one without rows, as they were until November 2026, are "old
form" and "medians". FORMAT is a number format of Python and the unit to be shown, which may be
another one of the same kind: ``.0f ms``, ``.2f s``, ``.0f %``, ``.1f`` (no unit). Instead of the median: min,
max, floor, goal, or ratio (that to the best peer).

Without --check all quoted figures are written anew. With it nothing is written, and the status is 1 if a
figure is not what its file says, or was typed where it has to be quoted (`bench/typed_figures.py`). It is 1
with both if a quote names something that is not there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench import rows, typed_figures
from bench.rows import Row

ROOT = Path(__file__).parents[1]
QUOTE = re.compile(r"(<!-- quote (.*?) -->)(.*?)(<!-- /quote -->)")
OPENING = "<!-- quote "
OLD_FORM = "old form"
FORMAT = re.compile(r"(,?\.\d[fg])(?: (.+))?")
FIELDS = {
    "median": "median",
    "min": "min",
    "max": "max",
    "floor": "floor",
    "goal": "goal",
    "ratio": "ratio_to_best_peer",
}
FACTORS = {
    ("s", "ms"): 1e3,
    ("s", "µs"): 1e6,
    ("ms", "s"): 1e-3,
    ("MiB", "GiB"): 1 / 1024,
    ("1", "%"): 100.0,
    ("1", "x"): 1.0,
    ("ratio_up", "%"): 100.0,
    ("ratio_up", "x"): 1.0,
}


class Unknown(ValueError):
    """A quote names something that is not there; the message says what."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a figure, and where."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class Differs(Problem):
    """A figure that is not what its results file says."""


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench quotes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a figure is not right")
    args = parser.parse_args(arguments)
    problems = check(root) if args.check else rewrite(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check(root: Path) -> list[Problem]:
    """Return what is wrong with the figures of all documents."""
    wrong = [problem for path in pages(root) for problem in quoted(root, path)[1]]
    for path in pages(root):
        place = path.relative_to(root)
        text = QUOTE.sub(r"\1\4", path.read_text())
        wrong += [Problem(place, line, what) for line, what in typed_figures.found(place, text, root)]
    return wrong


def rewrite(root: Path) -> list[Problem]:
    """Write all figures anew; return what is wrong with those that could not be."""
    problems = []
    for path in pages(root):
        before = path.read_bytes().decode()
        after, found = quoted(root, path)
        if after != before:
            path.write_bytes(after.encode())
        problems += [problem for problem in found if not isinstance(problem, Differs)]
    return problems


def pages(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def quoted(root: Path, path: Path) -> tuple[str, list[Problem]]:
    """Return the text of a document with its figures as they should be, and what is wrong with it."""
    lines, problems = [], []
    for number, line in enumerate(path.read_bytes().decode().splitlines(keepends=True), 1):
        right, wrong = _line(line, root / "bench" / "results")
        lines.append(right)
        problems += [kind(path.relative_to(root), number, what) for kind, what in wrong]
    return "".join(lines), problems


def _line(line: str, results: Path) -> tuple[str, list[tuple[type[Problem], str]]]:
    wrong: list[tuple[type[Problem], str]] = []
    if line.count(OPENING) != len(QUOTE.findall(line)):
        wrong.append((Problem, "a quote has to end on its line, with <!-- /quote -->"))

    def one(match: re.Match[str]) -> str:
        opening, said, text, closing = match.groups()
        try:
            right = figure(said, results)
        except ValueError as error:
            wrong.append((Problem, str(error)))
            return match[0]
        if text != right:
            wrong.append((Differs, f"{text!r} has to be {right!r}: {said}"))
        return opening + right + closing

    return QUOTE.sub(one, line), wrong


def figure(said: str, results: Path) -> str:
    """Return the text of a quoted figure.

    Raises:
        ValueError: It names something that is not there, or cannot be understood; the message says what.
    """
    parts = [part.strip() for part in said.split(";")]
    if len(parts) == 6:
        parts.insert(5, "median")
    if len(parts) != 7 or "|" in said or parts[5] not in FIELDS:
        raise Unknown(
            f"{said!r} is no FILE; SUITE; CASE; CONTENDER; METRIC[; {'|'.join(FIELDS)}]; FORMAT without a |"
        )
    name, *place, which, shown = parts
    taken = _rows(results / name)
    try:
        found = only(taken, place)
    except Unknown as error:
        raise Unknown(f"{name} holds {error}") from None
    number = getattr(found, FIELDS[which])
    if number is None:
        why = found.why_missing or "it was measured without one"
        raise Unknown(f"{name}: {'; '.join(place)} has no {which}: {why}")
    return _shown(float(number), "1" if which == "ratio" else found.unit, shown)


def only(taken: Sequence[Row], place: Sequence[str]) -> Row:
    """Return the row of a suite, case, contender and metric.

    Raises:
        Unknown: There is none, or more than one; the message says what is there instead.
    """
    found = [one for one in taken if _place(one) == list(place)]
    if len(found) != 1:
        near = ", ".join(_near(taken, list(place))) or "nothing like it"
        raise Unknown(f"{len(found)} rows {'; '.join(place)}; there is {near}")
    return found[0]


def _shown(number: float, unit: str, shown: str) -> str:
    wanted = FORMAT.fullmatch(shown)
    if wanted is None:
        raise Unknown(f"{shown!r} is no number format with a unit, such as '.0f ms'")
    spec, to = wanted.groups()
    factor = 1.0 if to in (None, unit) else FACTORS.get((unit, to))
    if factor is None:
        raise Unknown(f"{unit!r} cannot be shown as {to!r}")
    return format(number * factor, spec) + (f" {to}" if to else "")


@cache
def _rows(path: Path) -> list[Row]:
    try:
        return rows.read(path)[1]
    except ValueError:
        if old := _of_old_form(path):
            return old
        raise


def _of_old_form(path: Path) -> list[Row]:
    """Return the medians of a file without rows, which is hpresil's alone if it names nobody."""
    try:
        medians = json.loads(path.read_text())["medians"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    named = {who: mine for who, mine in medians.items() if isinstance(mine, dict)} or {"hpresil": medians}
    return [
        rows.row(OLD_FORM, "medians", who, metric=metric, unit=unit, figures=[number])
        for who, mine in named.items()
        for metric, number in mine.items()
        if isinstance(number, int | float)
        for unit in ["ms" if metric.endswith("_ms") else "1"]
    ]


def _place(one: Row) -> list[str]:
    return [one.suite, one.case, one.contender, one.metric]


def _near(taken: Sequence[Row], place: list[str]) -> Iterator[str]:
    """Yield what could have been meant by the first part of ``place`` that is not there."""
    for length in range(len(place), 0, -1):
        known = dict.fromkeys(
            _place(one)[length - 1] for one in taken if _place(one)[: length - 1] == place[: length - 1]
        )
        if known:
            yield from known
            return
