"""What a bench says: one `Row` a figure, beside its floor, its goal and the best of its peers.

A bench of `bench/micro` has ``rows(quick: bool) -> Iterator[Row]``. Contenders and floors take turns within
each repeat (`take_turns`), so that a busy neighbour meets all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import trace


@dataclass(frozen=True)
class Row:
    """One figure: median, least and largest of ``runs`` counted repeats; None where unknown.

    ``floor`` is what the machine allows and ``goal`` what is wanted, both in ``unit``. ``baseline`` is what
    the same costs without what is measured, where that is no floor. ``ratio_to_best_peer`` is the median over
    that of the best other system in its default configuration, ``ratio_to_best_tuned_peer`` over that of the
    best one with settings made for this workload; all were measured in the same run. ``note``: what is to be
    known about the figure, say that some repeats failed.
    """

    suite: str
    case: str
    contender: str
    metric: str
    unit: str
    median: float | None
    min: float | None
    max: float | None
    runs: float | None
    floor: float | None
    goal: float | None
    ratio_to_best_peer: float | None
    why_missing: str | None
    # Keys that came later have a default, so that older files can be read.
    ratio_to_best_tuned_peer: float | None = None
    baseline: float | None = None
    note: str | None = None


BROKEN = "the bench failed: "
"""How the reason for a missing figure begins if the bench is at fault and not who was measured."""


def row(
    suite: str,
    case: str,
    contender: str,
    *,
    metric: str,
    unit: str,
    figures: Sequence[float],
    floor: float | None = None,
    goal: float | None = None,
    peer: float | None = None,
    tuned_peer: float | None = None,
    baseline: float | None = None,
    note: str | None = None,
) -> Row:
    """Return the row of these repeats; ``peer``, ``tuned_peer``: the medians of the best other systems."""
    median = statistics.median(figures)
    return replace(
        missing(suite, case, contender, metric, unit, why=""),
        median=median,
        min=min(figures),
        max=max(figures),
        runs=len(figures),
        floor=floor,
        goal=goal,
        ratio_to_best_peer=None if not peer else median / peer,
        why_missing=None,
        ratio_to_best_tuned_peer=None if not tuned_peer else median / tuned_peer,
        baseline=baseline,
        note=note,
    )


def missing(suite: str, case: str, contender: str, metric: str, unit: str, *, why: str) -> Row:
    """Return the row of a figure that could not be taken here, and why."""
    return Row(suite, case, contender, metric, unit, None, None, None, 0, None, None, None, why)


class Call(NamedTuple):
    """One call that counts: seconds by the clock and of all its threads' processor time, what it returned."""

    seconds: float
    processor_s: float
    returned: Any


BY_TIMES = ("", " by processor time")
"""What the names of rates end with, by the two times of a `Call` in their order."""


def calls_in_turns(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, list[Call]]:
    """Return the calls by contender; all of them run once in each repeat."""
    calls: dict[str, list[Call]] = {name: [] for name in contenders}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(warm_up + repeats):
        for name, call in contenders.items():
            begun, worked = time.perf_counter(), time.process_time()
            returned = call()
            ended = time.perf_counter()
            calls[name].append(Call(ended - begun, time.process_time() - worked, returned))
            times[name].append((begun, ended))
    trace.of_turns(times, warm_up)
    return {name: those[warm_up:] for name, those in calls.items()}


def take_turns(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of each call by contender; all of them run once in each repeat."""
    turns = calls_in_turns(contenders, repeats=repeats, warm_up=warm_up)
    return {name: [call.seconds for call in those] for name, those in turns.items()}


def write(path: Path, rows: Iterable[Row], about: Mapping[str, Any]) -> None:
    """Write ``{"machine": {...}, "rows": [...]}``: all of it, or what was there before stays."""
    text = json.dumps({"machine": dict(about), "rows": [asdict(one) for one in rows]}, indent=1)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text + "\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what a file of `write` holds: what its figures depend on, and its rows.

    Raises:
        ValueError: It is no such file, or cannot be read; the message names it.
    """
    try:
        found = json.loads(path.read_text())
        return dict(found["machine"]), [Row(**one) for one in found["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no rows of a bench: {error!r}") from error


def caption(about: Mapping[str, Any]) -> str:
    """Return in a line what figures depend on."""
    return ", ".join(f"{name.replace('_', ' ')} {_said(value)}" for name, value in about.items())


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        figures = [one for each in value.values() if isinstance(each, list) for one in each]
        if figures:  # of each part; together that is from the least to the largest
            return f"{_said(min(figures))} to {_said(max(figures))}"
        inside = "; ".join(f"{name} {_said(one)}" for name, one in value.items())
        return f"({inside})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


HEAD = (
    *("case", "contender", "metric", "unit", "median", "min", "max", "floor", "goal"),
    *("of the best peer", "of the best tuned peer", "note"),
)


def table(rows: Iterable[Row]) -> str:
    """Return a Markdown table, each figure beside its floor, or its baseline, and its goal."""
    lines = [f"| {' | '.join(HEAD)} |", "| --- | --- | --- | --- | " + "---: | " * 7 + "--- |"]
    for one in rows:
        numbers = [_number(number) for number in (one.median, one.min, one.max)]
        if one.why_missing is not None:
            numbers[0] = one.why_missing
        floor = _number(one.floor)
        if one.floor is None and one.baseline is not None:
            floor = f"{_number(one.baseline)} (baseline)"
        peers = (one.ratio_to_best_peer, one.ratio_to_best_tuned_peer)
        cells = [*numbers, floor, *map(_number, (one.goal, *peers)), one.note or ""]
        text = [one.case, one.contender, one.metric, one.unit, *cells]
        lines.append("| " + " | ".join(_cell(each) for each in text) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
