"""What protection costs while nothing happens: step time, processor time and memory, beside plain DDP in the
same run.

Each contender runs as it would be run to outlive a fault, saving as often as its recovery needs. Steps are
timed over whole intervals between saves, so that each has its share of them. The baseline is plain DDP, whose
step in the same turn the others are compared with; it is no floor, since its own exchange can be beaten.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from bench.contenders import Contender, Job, Mark, contenders_of, launched
from bench.contenders.peers import BASE, OURS, best
from bench.contenders.scratch import scratch
from bench.contenders.turns import Turns, take_turns
from bench.rows import Row, missing, row
from bench.steady.use import Use

SUITE = "steady"
REPEATS, WARM_UP = 5, 1
GOAL = 0.85
METRICS = {"step_s": "s", "step_median_s": "s", "step_to_ddp": "1", "cpu_s": "s", "memory": "MiB"}
INTERVALS = {"5m": (10, 4)}
"""How many intervals between saves are timed, and how many more there are to read memory in, by the size."""
OTHER_INTERVALS, QUICK_INTERVALS = (3, 1), (1, 1)
Figures = dict[str, float]


def jobs(quick: bool) -> dict[str, Job]:
    """Return the job of each case. With 4 samples a part sending bounds a step, with 64 computing."""
    return {
        f"{size}-{workers}": of_intervals(Job(size, workers, 0), *intervals(size, quick))
        for size, workers in (("5m", 2), ("50m", 2), ("50m", 4), ("50m-long", 2))
    }


def intervals(size: str, quick: bool) -> tuple[int, int]:
    """Return how many intervals are timed, and how many come after them."""
    full = INTERVALS.get(size, OTHER_INTERVALS)
    return (QUICK_INTERVALS[0], full[1]) if quick else full


def of_intervals(job: Job, timed: int, more: int) -> Job:
    """Return the job with as many steps: one interval to warm up, those that are timed, and more."""
    return replace(job, steps=(1 + timed + more) * job.save_every)


def names(quick: bool) -> list[str]:
    """Return the cases that are run if none is named."""
    return ["5m-2"] if quick else list(jobs(quick))


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender."""
    job = jobs(quick)[case]
    repeats, warm_up = (1, 0) if quick else (REPEATS, WARM_UP)
    timed, _ = intervals(job.size, quick)
    yield from measured(case, job, timed, contenders_of(SUITE), repeats=repeats, warm_up=warm_up)


def measured(
    case: str, job: Job, timed: int, contenders: Sequence[Contender], *, repeats: int, warm_up: int
) -> Iterator[Row]:
    """Yield the rows of those contenders, whose steps are timed over that many intervals between saves."""
    contenders = sorted(contenders, key=lambda each: each.name != BASE)  # DDP first in each turn
    turns = take_turns(
        contenders, lambda contender: measure(contender, job, timed), repeats=repeats, warm_up=warm_up
    )
    base = dict(zip(turns.numbers.get(BASE, []), turns.taken.get(BASE, []), strict=True))
    for name, those in turns.taken.items():
        for number, figures in zip(turns.numbers[name], those, strict=True):
            if number in base:
                figures["step_to_ddp"] = figures["step_s"] / base[number]["step_s"]
    for contender in contenders:
        for metric in METRICS:
            yield _row(case, contender, metric, contenders, turns)


def measure(contender: Contender, job: Job, timed: int) -> Figures:
    """Run one job without a fault.

    Raises:
        Cannot: It cannot run this job; Failed: it did not end well, or left no marks of the steps.
        Unavailable: It cannot be installed here.
    """
    if cannot := contender.why_not(job):
        raise launched.Cannot(cannot)
    first = job.save_every - 1
    last = first + timed * job.save_every
    use = Use(first, last)
    with scratch(f"{contender.name} {job.size}") as directory:
        marks = launched.run(contender, job, directory, watch=use)
        return step_times(marks, first, last) | use.figures()


def step_times(marks: Sequence[Mark], first: int, last: int) -> Figures:
    """Return what a step of rank 0 takes between the marks of two steps: the mean, and the median of all.

    Raises:
        Failed: There is no mark of one of those steps.
    """
    times = {mark["step"]: mark["t"] for mark in marks if mark["what"] == "step" and mark["rank"] == 0}
    if absent := [step for step in range(first, last + 1) if step not in times]:
        raise launched.Failed(f"rank 0 left no mark of step {absent[0]}; there are {len(times)} of others")
    gaps = [b - a for a, b in pairwise(times[step] for step in range(first, last + 1))]
    return {"step_s": statistics.fmean(gaps), "step_median_s": statistics.median(gaps)}


def _row(
    case: str, contender: Contender, metric: str, contenders: Sequence[Contender], turns: Turns[Figures]
) -> Row:
    name, unit = contender.name, METRICS[metric]
    found = {who: [each[metric] for each in those if metric in each] for who, those in turns.taken.items()}
    if not found.get(name):
        compared = "there is no figure of plain DDP in the same turn to compare it with"
        late = "its steps were over before this could be looked at"
        why = turns.why.get(name) or (compared if metric == "step_to_ddp" else late)
        return missing(SUITE, case, name, metric, unit, why=why)
    return row(
        SUITE,
        case,
        name,
        metric=metric,
        unit=unit,
        figures=found[name],
        goal=GOAL if (name, metric) == (OURS, "step_to_ddp") else None,
        baseline=statistics.median(found[BASE]) if found.get(BASE) and name != BASE else None,
        note=turns.notes.get(name),
        **(best(contenders, found) if name == OURS else {}),
    )
