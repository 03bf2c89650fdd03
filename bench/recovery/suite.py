"""What a fault costs each contender, from the same kill in the same workload.

Contenders take turns within each repeat. Phases are counted from the fault (`phases.py`). The floor of a
recovery is a healthy step: the lost part has to be computed and exchanged once more. hpresil's goal is that
and 0.1 s.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.contenders import Contender, Fault, Job, all_contenders, launched
from bench.contenders.environment import Unavailable
from bench.recovery import phases
from bench.rows import Row, missing, row

SUITE = "recovery"
FAULT_STEP, STEPS = 25, 36
GOAL_OVER_STEP_S = 0.1
METRICS = {
    "healthy_step_s": "s",
    "noticed_s": "s",
    "regrouped_s": "s",
    "restored_s": "s",
    "first_full_group_step_s": "s",
    "steps_redone": "1",
    "parts_lost": "1",
    "losses_changed": "1",
}


def cases(quick: bool) -> dict[str, Job]:
    """Return the jobs by name."""

    def job(size: str, kind: str, workers: int = 2) -> Job:
        return Job(size, workers, STEPS, Fault(kind, rank=1, step=FAULT_STEP))

    if quick:
        return {"sigkill-50m-2+1": job("50m", "kill")}
    return {
        "sigkill-50m-2+1": job("50m", "kill"),
        "sigkill-50m-4+1": job("50m", "kill", workers=4),
        "sigkill-5m-2+1": job("5m", "kill"),
        "exception-50m-2+1": job("50m", "raise"),
        "hang-50m-2+1": job("50m", "hang"),
    }


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each contender in each case."""
    repeats = 1 if quick else 5
    for case, job in cases(quick).items():
        yield from _case(case, job, repeats)


def _case(case: str, job: Job, repeats: int) -> Iterator[Row]:
    costs: dict[str, list[phases.Cost]] = {}
    changed: dict[str, list[int]] = {}
    why: dict[str, str] = {}
    contenders = [each for each in all_contenders() if each.protects]
    for _ in range(repeats):
        for contender in contenders:
            if contender.name in why:
                continue
            try:
                cost, differ = measure(contender, job)
            except (launched.Failed, Unavailable, ValueError) as error:
                why[contender.name] = str(error).splitlines()[0]
            else:
                costs.setdefault(contender.name, []).append(cost)
                changed.setdefault(contender.name, []).append(differ)
    for contender in contenders:
        name = contender.name
        if name in costs:
            yield from _rows(case, name, costs, changed[name])
        else:
            for metric, unit in METRICS.items():
                yield missing(SUITE, case, name, metric, unit, why=why[name])


def measure(contender: Contender, job: Job) -> tuple[phases.Cost, int]:
    """Run one job; return its cost and how many losses of its lineage are not those of an undisturbed run.

    Raises:
        Failed: It did not do what it was asked to; ValueError: the group was never whole again.
        Unavailable: It cannot be installed here.
    """
    assert job.fault is not None
    if cannot := contender.why_not(job):
        raise launched.Failed(cannot)
    scratch = Path(tempfile.mkdtemp(prefix="hpresil-bench-"))
    try:
        marks = launched.run(contender, job, scratch / "run")
        at = launched.fault_at(scratch / "run")
        cost = phases.cost(marks, at, workers=job.workers, steps=job.steps, fault_step=job.fault.step)
        undisturbed = Job(job.size, job.workers, job.steps, None, job.save_every)
        right = phases.lineage(
            [m for m in launched.run(contender, undisturbed, scratch / "right") if m["what"] == "step"]
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return cost, sum(cost.losses.get(part) != loss for part, loss in right.items())


def _rows(case: str, name: str, costs: dict[str, list[phases.Cost]], changed: list[int]) -> Iterator[Row]:
    mine = costs[name]
    healthy = sorted(cost.healthy_step_s for cost in mine)[len(mine) // 2]
    peers = [
        sorted(cost.first_full_group_step_s for cost in theirs)[len(theirs) // 2]
        for other, theirs in costs.items()
        if other != "hpresil"
    ]
    for metric, unit in METRICS.items():
        figures = changed if metric == "losses_changed" else [getattr(cost, metric) for cost in mine]
        known = [float(figure) for figure in figures if figure is not None]
        if not known:
            yield missing(SUITE, case, name, metric, unit, why="it leaves no mark of this")
        elif metric == "first_full_group_step_s" and name == "hpresil":
            goal = healthy + GOAL_OVER_STEP_S
            best = min(peers, default=None)
            yield row(
                SUITE,
                case,
                name,
                metric=metric,
                unit=unit,
                figures=known,
                floor=healthy,
                goal=goal,
                peer=best,
            )
        else:
            yield row(SUITE, case, name, metric=metric, unit=unit, figures=known)
