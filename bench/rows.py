"""What a bench says: one `Row` a figure, beside its floor, its goal and the best of its peers.

A bench of `bench/micro` has ``rows(quick: bool) -> Iterator[Row]``. Contenders and floors take turns within
each repeat (`take_turns`), so that a busy neighbour meets all of them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import trace


@dataclass(frozen=True)
class Row:
    """One figure: median, least and largest of ``runs`` counted repeats; None where unknown.

    ``floor`` is what the machine allows and ``goal`` what is wanted, both in ``unit``;
    ``ratio_to_best_peer`` is the median over that of the best other system, measured in the same run.
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
) -> Row:
    """Return the row of these repeats; ``peer`` is the median of the best other system."""
    median = statistics.median(figures)
    ratio = None if not peer else median / peer
    least, most = min(figures), max(figures)
    return Row(
        suite, case, contender, metric, unit, median, least, most, len(figures), floor, goal, ratio, None
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


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    names = [
        line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def write(path: Path, rows: Iterable[Row], about: Mapping[str, Any]) -> None:
    """Write ``{"machine": {...}, "rows": [...]}``."""
    text = json.dumps({"machine": dict(about), "rows": [asdict(one) for one in rows]}, indent=1)
    path.write_text(text + "\n")


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
    texts = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in about.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())


HEAD = ("case", "contender", "metric", "unit", "median", "min", "max", "floor", "goal", "of the best peer")


def table(rows: Iterable[Row]) -> str:
    """Return a Markdown table, each figure beside its floor and its goal."""
    lines = [f"| {' | '.join(HEAD)} |", "| --- | --- | --- | --- | " + "---: | " * 6]
    for one in rows:
        numbers = (one.median, one.min, one.max, one.floor, one.goal, one.ratio_to_best_peer)
        cells = [_number(number) for number in numbers]
        if one.why_missing is not None:
            cells[0] = one.why_missing
        text = " | ".join([one.case, one.contender, one.metric, one.unit, *cells])
        lines.append(f"| {text} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
