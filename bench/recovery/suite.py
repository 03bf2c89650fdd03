"""What a fault costs each contender, from the same fault in the same workload.

Contenders take turns within each repeat. Phases are counted from the fault (`phases.py`). The floor of a
recovery is a healthy step: the lost part has to be computed and exchanged once more. hpresil's goal is that
and 0.1 s, after a hang also the time that it waits before it calls a worker hung.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

from bench.contenders import Contender, Fault, Job, contenders_of, launched
from bench.contenders.hpresil import HANG_S
from bench.contenders.turns import take_turns
from bench.recovery import phases
from bench.rows import Row, machine, missing, row

SUITE = "recovery"
OURS = "hpresil"
REPEATS, WARM_UP = 5, 1
GOAL_OVER_STEP_S = 0.1
METRICS = {
    "first_full_group_step_s": "s",
    "over_a_step_s": "s",
    "healthy_step_s": "s",
    "noticed_s": "s",
    "regrouped_s": "s",
    "restored_s": "s",
    "steps_redone": "1",
    "parts_lost": "1",
    "parts_repeated": "1",
    "losses_changed": "1",
}
MEMORY_GIB = {"5m": 2.0, "50m": 6.0, "350m": 40.0}
"""What three or five workers, their gradients and two frames of the state take, at most."""


def jobs() -> dict[str, Job]:
    """Return the job of each case."""

    def job(size: str, kind: str, workers: int = 2, nodes: int = 1, resident_gib: float = 0.0) -> Job:
        rank = workers - 1 if nodes > 1 else 1
        return Job(size, workers, 36, Fault(kind, rank, 25), resident_gib=resident_gib, nodes=nodes)

    return {
        "sigkill-50m-2+1": job("50m", "kill"),
        "sigkill-50m-2+1-8gib": job("50m", "kill", resident_gib=8.0),
        "sigkill-50m-4+1": job("50m", "kill", workers=4),
        "sigkill-5m-2+1": job("5m", "kill"),
        "sigkill-350m-2+1": job("350m", "kill"),
        "hang-50m-2+1": job("50m", "hang"),
        "exception-50m-2+1": job("50m", "raise"),
        "node-50m-2x2": job("50m", "node", workers=4, nodes=2),
    }


def names(quick: bool) -> list[str]:
    """Return the cases."""
    return ["sigkill-5m-2+1"] if quick else list(jobs())


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender."""
    job = jobs()[case]
    repeats, warm_up = (1, 0) if quick else (REPEATS, WARM_UP)
    contenders = contenders_of(SUITE)
    taken, why = take_turns(
        contenders, lambda contender: faulted(contender, job), repeats=repeats, warm_up=warm_up
    )
    for contender in contenders:
        name = contender.name
        if name in why:
            for metric, unit in METRICS.items():
                yield missing(SUITE, case, name, metric, unit, why=why[name])
        else:
            yield from _rows(case, job, contender, taken)


def faulted(contender: Contender, job: Job) -> phases.Cost:
    """Run one job with its fault and return what that cost.

    Raises:
        Failed: It did not do what it was asked to, or cannot; ValueError: the group was never whole again.
        Unavailable: It cannot be installed here.
    """
    assert job.fault is not None
    have, need = machine()["memory_gib"], MEMORY_GIB[job.size] * job.workers / 2 + job.resident_gib
    if need > have:
        raise launched.Failed(f"it takes {need:g} GiB of memory, there are {have:g}")
    if cannot := contender.why_not(job):
        raise launched.Failed(cannot)
    job = replace(job, steps=job.steps + contender.longer)
    with TemporaryDirectory(prefix="hpresil-bench-") as scratch:
        marks = launched.run(contender, job, launched.place(scratch))
        at = launched.fault_at(launched.place(scratch))
    return phases.cost(
        marks, at, workers=job.workers, left=job.left, steps=job.steps, fault_step=job.fault.step
    )


def losses_changed(contender: Contender, job: Job, costs: list[phases.Cost]) -> list[float]:
    """Return how many losses of each run are not those of a run without the fault. Raises Failed."""
    alone = replace(job, fault=None, resident_gib=0.0, steps=job.steps + contender.longer)
    with TemporaryDirectory(prefix="hpresil-bench-") as scratch:
        marks = launched.run(contender, alone, launched.place(scratch))
    right = phases.lineage([mark for mark in marks if mark["what"] == "step"])
    return [sum(cost.losses.get(part) != loss for part, loss in right.items()) for cost in costs]


def _rows(case: str, job: Job, contender: Contender, taken: dict[str, list[phases.Cost]]) -> Iterator[Row]:
    name = contender.name
    for metric, unit in METRICS.items():
        compared = metric == "losses_changed"
        costs = taken[name]
        figures = losses_changed(contender, job, costs) if compared else _known(costs, metric)
        if not figures:
            yield missing(SUITE, case, name, metric, unit, why="it leaves no mark of this")
            continue
        floor = goal = peer = None
        if metric == "first_full_group_step_s":
            floor = statistics.median(_known(taken[name], "healthy_step_s"))
        if metric == "first_full_group_step_s" and name == OURS:
            goal = floor + GOAL_OVER_STEP_S + _waits(job)
            others = [statistics.median(_known(costs, metric)) for who, costs in taken.items() if who != OURS]
            peer = min(others, default=None)
        if metric == "over_a_step_s" and name == OURS:
            goal = GOAL_OVER_STEP_S + _waits(job)
        yield row(
            SUITE, case, name, metric=metric, unit=unit, figures=figures, floor=floor, goal=goal, peer=peer
        )


def _waits(job: Job) -> float:
    return HANG_S if job.fault is not None and job.fault.kind == "hang" else 0.0


def _known(costs: list[phases.Cost], metric: str) -> list[float]:
    found = [getattr(cost, metric) for cost in costs]
    return [float(figure) for figure in found if figure is not None]
