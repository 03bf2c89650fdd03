"""What protection costs while nothing happens: step time, processor time and memory, beside plain DDP in the
same run.

Each contender runs as it would be run to outlive a fault: with its spares, and saving as often as its
recovery needs. The floor is plain DDP, whose steps the others are compared with in each turn.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.contenders import Contender, Job, all_contenders, launched
from bench.contenders.environment import Unavailable
from bench.recovery import phases
from bench.rows import Row, missing, row

SUITE = "steady"
BASE = "no protection (DDP)"
STEPS = 30
GOAL = 0.85
METRICS = {"step_s": "s", "cpu_s": "s", "peak_memory": "MiB", "step_to_ddp": "1"}
Figures = dict[str, float]


def cases(quick: bool) -> dict[str, Job]:
    """Return the jobs by name."""
    if quick:
        return {"50m-2": Job("50m", 2, STEPS)}
    sizes = [("5m", 2), ("50m", 2), ("50m", 4)]
    return {f"{size}-{workers}": Job(size, workers, STEPS) for size, workers in sizes}


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender in each case."""
    for case, job in cases(quick).items():
        yield from _case(case, job, 1 if quick else 5)


def _case(case: str, job: Job, repeats: int) -> Iterator[Row]:
    taken: dict[str, list[Figures]] = {}
    why: dict[str, str] = {}
    contenders = sorted(all_contenders(), key=lambda each: each.protects)  # plain DDP first in each turn
    for _ in range(repeats):
        for contender in contenders:
            if contender.name in why:
                continue
            try:
                figures = measure(contender, job)
            except (launched.Failed, Unavailable, statistics.StatisticsError) as error:
                why[contender.name] = str(error).splitlines()[0]
                continue
            of_ddp = taken.get(BASE) or [figures]
            figures["step_to_ddp"] = figures["step_s"] / of_ddp[-1]["step_s"]
            taken.setdefault(contender.name, []).append(figures)
    yield from _rows(case, contenders, taken, why)


def measure(contender: Contender, job: Job) -> Figures:
    """Run one job without a fault.

    Raises:
        Failed: It did not end well; Unavailable: it cannot be installed here.
    """
    scratch = Path(tempfile.mkdtemp(prefix="hpresil-bench-"))
    try:
        marks = launched.run(contender, job, scratch / "run")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    done = [mark for mark in marks if mark["what"] == "step"]
    mine = [mark for mark in done if mark["rank"] == 0 and mark["step"] >= phases.WARM_UP_STEPS]
    peaks = {mark["pid"]: mark["peak_kib"] for mark in done}
    return {
        "step_s": phases.healthy_step(done, job.steps),
        "cpu_s": (mine[-1]["cpu_s"] - mine[0]["cpu_s"]) / (len(mine) - 1),
        "peak_memory": sum(peaks.values()) / 1024,
    }


def _rows(
    case: str, contenders: Sequence[Contender], taken: dict[str, list[Figures]], why: dict[str, str]
) -> Iterator[Row]:
    for contender in contenders:
        name = contender.name
        for metric, unit in METRICS.items():
            if name in why:
                yield missing(SUITE, case, name, metric, unit, why=why[name])
                continue
            figures = [each[metric] for each in taken[name]]
            floor = None if BASE not in taken else statistics.median(each[metric] for each in taken[BASE])
            goal = GOAL if (name, metric) == ("hpresil", "step_to_ddp") else None
            yield row(SUITE, case, name, metric=metric, unit=unit, figures=figures, floor=floor, goal=goal)
