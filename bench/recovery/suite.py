"""What a fault costs each contender, from the same fault in the same workload.

Contenders take turns within each repeat. Phases are counted from the fault (`phases.py`). The floor of a
recovery is a healthy step: the lost part has to be computed and exchanged once more. hpresil's goal is that
and 0.1 s, after a hang also the time that it waits before it calls a worker hung. It may lose, repeat, redo
and change nothing.

The losses of a run are compared with those of a run of the same contender and job without the fault. There is
one such run for all cases that have that job: it is the same arithmetic each time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.contenders import Contender, Fault, Job, contenders_of, launched
from bench.contenders.hpresil import HANG_S
from bench.contenders.peers import OURS, best
from bench.contenders.scratch import scratch
from bench.contenders.turns import Turns, take_turns
from bench.machine import free_gib
from bench.recovery import phases
from bench.rows import Row, missing, row

SUITE = "recovery"
REPEATS, WARM_UP = 5, 1
GOAL_OVER_STEP_S = 0.1
METRICS = {
    "first_full_group_step_s": "s",
    "caught_up_s": "s",
    "over_a_step_s": "s",
    "healthy_step_s": "s",
    "noticed_s": "s",
    "members_known_s": "s",
    "regrouped_s": "s",
    "restored_s": "s",
    "steps_redone": "1",
    "parts_lost": "1",
    "parts_repeated": "1",
    "losses_changed": "1",
}
WHOLE = ("first_full_group_step_s", "caught_up_s")
"""Times of whole recoveries, which are compared with a healthy step."""
COUNTS = ("steps_redone", "parts_lost", "parts_repeated", "losses_changed")
Lineage = dict[tuple[int, int], str]
MEMORY_GIB = {"5m": 2.0, "50m": 6.0, "350m": 40.0}
"""What three or five workers, their gradients and two frames of the state take, at most."""


def jobs() -> dict[str, Job]:
    """Return the job of each case."""

    def job(size: str, kind: str, workers: int = 2, nodes: int = 1, resident_gib: float = 0.0) -> Job:
        rank = workers - 1 if nodes > 1 else 1
        spares = 1 if nodes == 1 else 0  # no node waits to replace a lost one
        fault = Fault(kind, rank, 25)
        return Job(size, workers, 36, fault, resident_gib=resident_gib, nodes=nodes, spares=spares)

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
    """Return the cases that are run if none is named."""
    return ["sigkill-5m-2+1"] if quick else list(jobs())


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender."""
    repeats, warm_up = (1, 0) if quick else (REPEATS, WARM_UP)
    yield from measured(case, jobs()[case], contenders_of(SUITE), repeats=repeats, warm_up=warm_up)


def measured(
    case: str, job: Job, contenders: list[Contender], *, repeats: int, warm_up: int
) -> Iterator[Row]:
    """Yield the rows of those contenders."""
    turns = take_turns(
        contenders, lambda contender: faulted(contender, job), repeats=repeats, warm_up=warm_up
    )
    recovered = [contender for contender in contenders if contender.name in turns.taken]
    right = take_turns(recovered, lambda contender: undisturbed(contender, job), repeats=1, warm_up=0)
    peers = {
        metric: best(contenders, {who: _known(costs, metric) for who, costs in turns.taken.items()})
        for metric in WHOLE
    }
    for contender in contenders:
        for metric, unit in METRICS.items():
            place = (SUITE, case, contender.name, metric, unit)
            figures, why = _figures(contender.name, metric, turns, right)
            if why:
                yield missing(*place, why=why)
                continue
            more = _beside(contender.name, metric, job, turns.taken[contender.name])
            if contender.name == OURS and metric in WHOLE:
                more |= peers[metric]
            yield row(
                *place[:3],
                metric=metric,
                unit=unit,
                figures=figures,
                note=turns.notes.get(contender.name),
                **more,
            )


def faulted(contender: Contender, job: Job) -> phases.Cost:
    """Run one job with its fault and return what that cost.

    Raises:
        Cannot: It cannot do this, or not here; Failed: it did not do what it was asked to.
        ValueError: The group was never whole again.
        Unavailable: It cannot be installed here.
    """
    assert job.fault is not None
    if cannot := contender.why_not(job):
        raise launched.Cannot(cannot)
    have, need = free_gib(), MEMORY_GIB.get(job.size, 0.0) * job.workers / 2 + job.resident_gib
    if need > have:
        raise launched.Cannot(f"it takes {need:g} GiB of memory, {have:.1f} are free")
    job = replace(job, steps=steps(contender, job))
    with scratch(f"{contender.name} {job.size} {job.fault.kind}") as directory:
        marks = launched.run(contender, job, directory)
        return phases.cost(
            marks,
            launched.fault_at(directory),
            workers=job.workers,
            left=job.left,
            steps=job.steps,
            fault_step=job.fault.step,
        )


def steps(contender: Contender, job: Job) -> int:
    """Return how many steps a contender trains: more, if it goes on while it replaces a worker."""
    return job.steps + contender.longer(job)


_undisturbed: dict[tuple[str, Job], Lineage] = {}
"""What this process knows of runs without a fault, by contender and job."""


def undisturbed(contender: Contender, job: Job) -> Lineage:
    """Return the losses of the same job without its fault; it is run if it has not been. Raises Failed."""
    alone = replace(job, fault=None, resident_gib=0.0, steps=steps(contender, job))
    known = _undisturbed.get((contender.name, alone))
    if known is None:
        with scratch(f"{contender.name} {job.size} undisturbed") as directory:
            marks = launched.run(contender, alone, directory)
        known = phases.lineage([mark for mark in marks if mark["what"] == "step"])
        _undisturbed[contender.name, alone] = known
    return known


def _figures(
    name: str, metric: str, turns: Turns[phases.Cost], right: Turns[Lineage]
) -> tuple[list[float], str]:
    """Return the figures of a contender, or why there are none."""
    if name in turns.why:
        return [], turns.why[name]
    costs = turns.taken[name]
    if metric != "losses_changed":
        found = _known(costs, metric)
        return found, "" if found else "it leaves no mark of this"
    if name in right.why:
        return [], f"there is no run without the fault to compare with: {right.why[name]}"
    (losses,) = right.taken[name]
    return [sum(cost.losses.get(part) != loss for part, loss in losses.items()) for cost in costs], ""


def _beside(name: str, metric: str, job: Job, costs: list[phases.Cost]) -> dict[str, Any]:
    """Return the floor and the goal of a figure, as keywords of `row`."""
    step_s = statistics.median(_known(costs, "healthy_step_s"))
    found = {"floor": step_s} if metric in WHOLE else {}
    if name == OURS and metric in COUNTS:
        found["goal"] = 0.0
    if name == OURS and metric in (*WHOLE, "over_a_step_s"):
        over_s = GOAL_OVER_STEP_S + _waits(job)
        found["goal"] = over_s + (step_s if metric in WHOLE else 0.0)
    return found


def _waits(job: Job) -> float:
    return HANG_S if job.fault is not None and job.fault.kind == "hang" else 0.0


def _known(costs: list[phases.Cost], metric: str) -> list[float]:
    found = [getattr(cost, metric) for cost in costs]
    return [float(figure) for figure in found if figure is not None]
