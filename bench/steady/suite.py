"""What protection costs while nothing happens: step time, processor time and memory, beside plain DDP in the
same run.

Each contender runs as it would be run to outlive a fault, saving as often as its recovery needs. The floor is
plain DDP, whose step in the same turn the others are compared with.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from bench.contenders import Contender, Job, contenders_of, launched
from bench.contenders.turns import take_turns
from bench.recovery import phases
from bench.rows import Row, missing, row

SUITE = "steady"
BASE, OURS = "no protection (DDP)", "hpresil"
STEPS = 30
REPEATS, WARM_UP = 5, 1
GOAL = 0.85
METRICS = {"step_s": "s", "step_to_ddp": "1", "cpu_s": "s", "peak_memory": "MiB"}
Figures = dict[str, float]


def jobs() -> dict[str, Job]:
    """Return the job of each case. With 4 samples a part sending bounds a step, with 64 computing."""
    return {
        f"{size}-{workers}": Job(size, workers, STEPS)
        for size, workers in (("5m", 2), ("50m", 2), ("50m", 4), ("50m-long", 2))
    }


def names(quick: bool) -> list[str]:
    """Return the cases."""
    return ["5m-2"] if quick else list(jobs())


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender."""
    job = jobs()[case]
    repeats, warm_up = (1, 0) if quick else (REPEATS, WARM_UP)
    contenders = sorted(contenders_of(SUITE), key=lambda each: each.name != BASE)  # DDP first in each turn
    taken, why = take_turns(
        contenders, lambda contender: measure(contender, job), repeats=repeats, warm_up=warm_up
    )
    ddp = [figures["step_s"] for figures in taken.get(BASE, [])]
    for contender in contenders:
        for figures, step_s in zip(taken.get(contender.name, []), ddp, strict=False):
            figures["step_to_ddp"] = figures["step_s"] / step_s
        yield from _rows(case, contender.name, taken, why)


def measure(contender: Contender, job: Job) -> Figures:
    """Run one job without a fault.

    Raises:
        Failed: It did not end well; Unavailable: it cannot be installed here.
    """
    with TemporaryDirectory(prefix="hpresil-bench-") as scratch:
        marks = launched.run(contender, job, launched.place(scratch))
    done = [mark for mark in marks if mark["what"] == "step"]
    mine = [mark for mark in done if mark["rank"] == 0 and mark["step"] >= phases.WARM_UP_STEPS]
    peaks = {mark["pid"]: mark["peak_kib"] for mark in done}
    return {
        "step_s": phases.healthy_step(done, job.steps),
        "cpu_s": (mine[-1]["cpu_s"] - mine[0]["cpu_s"]) / (len(mine) - 1),
        "peak_memory": sum(peaks.values()) / 1024,
    }


def _rows(case: str, name: str, taken: dict[str, list[Figures]], why: dict[str, str]) -> Iterator[Row]:
    for metric, unit in METRICS.items():
        base = [each[metric] for each in taken.get(BASE, []) if metric in each]
        mine = [each[metric] for each in taken.get(name, []) if metric in each]
        if not mine:
            reason = why.get(name) or "there is no figure of plain DDP to compare it with"
            yield missing(SUITE, case, name, metric, unit, why=reason)
            continue
        floor = statistics.median(base) if base else None
        goal = GOAL if (name, metric) == (OURS, "step_to_ddp") else None
        others = [
            statistics.median(each[metric] for each in those)
            for who, those in taken.items()
            if not who.startswith(OURS) and who != BASE and metric in those[0]
        ]
        peer = min(others, default=None) if name == OURS else None
        yield row(
            SUITE, case, name, metric=metric, unit=unit, figures=mine, floor=floor, goal=goal, peer=peer
        )
