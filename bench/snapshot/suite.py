"""What a snapshot costs the training thread, by each way to take one, while it waits and while it computes.

Each method is a process of its own, with its warm-up inside, and the methods take turns. What they write goes
to memory (/dev/shm, where it has the room), so no disk is in a figure.

If the state is to change at once, the floor is a memcpy on all cores into memory that is there. If it may
change later nobody has to wait at all, so there is none. A busy trainer has none either: the step without
snapshots is a baseline, which stands in a row of its own.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.contenders import launched
from bench.contenders.peers import best
from bench.contenders.scratch import scratch
from bench.contenders.turns import Turns, take_turns
from bench.machine import free_gib
from bench.rows import Row, missing, row
from bench.snapshot.contenders import CONTENDERS, COPIES, MEMORY, NO_PEERS, OURS, Method, Trainer
from bench.snapshot.figures import METRICS, figures

SUITE = "snapshot"
REPEATS = 5
GOALS = {
    ("idle", "blocked_s"): 0.025,
    ("idle", "blocked_at_once_s"): 0.025,
    ("busy", "step_to_none"): 1.01,
}
FLOORED = {("idle", "blocked_at_once_s"), ("idle", "done_s")}
"""What a copy of everything has to be in."""
MEMORY_GIB = {"1gib": 8.0, "50m": 5.0, "256mib": 3.0, "5m": 2.0}
"""What one process and its files take."""


def jobs(quick: bool) -> dict[str, Trainer]:
    """Return the job of each case; its steps are the snapshots, or pairs of blocks, that count."""
    if quick:
        return {"256mib-idle": Trainer("256mib", 1, 1), "5m-busy": Trainer("5m", 1, 1, does="busy")}
    return {"1gib-idle": Trainer("1gib", 1, 3), "50m-busy": Trainer("50m", 1, 2, does="busy")}


def names(quick: bool) -> list[str]:
    """Return the cases."""
    return list(jobs(quick))


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield a row for each metric of each method; the quick form has one of each system while it is busy."""
    job, methods = {**jobs(False), **jobs(True)}[case], CONTENDERS
    if quick and job.does == "busy":  # starting a process takes longer than anything in it
        methods = list({method.script[0]: method for method in CONTENDERS}.values())
    yield from measured(case, job, methods, repeats=1 if quick else REPEATS)


def measured(case: str, job: Trainer, methods: Sequence[Method], *, repeats: int) -> Iterator[Row]:
    """Yield the rows of those methods; each starts ``repeats`` times, in turns."""
    there = [method for method in methods if job.does in method.trainers]
    turns = take_turns(there, lambda method: run(method, job), repeats=repeats, warm_up=0)
    for method in there:
        for metric, unit in METRICS[job.does].items():
            if method.name in turns.why:
                yield missing(SUITE, case, method.name, metric, unit, why=turns.why[method.name])
            else:
                yield _row(case, job.does, method.name, metric, unit, there, turns)


def run(method: Method, job: Trainer) -> dict[str, float]:
    """Start one trainer with that method; return its figures.

    Raises:
        Failed: It did not come to its end; ValueError: it says why it cannot.
        Unavailable: What it needs cannot be installed here.
    """
    have, need = free_gib(), MEMORY_GIB.get(job.size, 0.0)
    if need > have:
        raise launched.Cannot(f"it takes {need:g} GiB of memory, {have:.1f} are free")
    with scratch(method.name, _place(need)) as directory:
        try:
            marks = launched.run(method, job, directory)
        finally:
            method.remove_leftovers(directory)
        return figures(job.does, marks)


def _place(need_gib: float) -> Path | None:
    """Return where files are memory, None (where temporary files are) without the room."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= need_gib * (1 << 30)
    return MEMORY if roomy else None


def _row(
    case: str,
    does: str,
    name: str,
    metric: str,
    unit: str,
    methods: Sequence[Method],
    turns: Turns[dict[str, float]],
) -> Row:
    found = {who: [each[metric] for each in those] for who, those in turns.taken.items()}
    floored = (does, metric) in FLOORED and COPIES in found and name != COPIES
    peers = [method for method in methods if method.name not in NO_PEERS]
    return row(
        SUITE,
        case,
        name,
        metric=metric,
        unit=unit,
        figures=found[name],
        floor=statistics.median(found[COPIES]) if floored else None,
        goal=GOALS.get((does, metric)) if name == OURS else None,
        note=turns.notes.get(name),
        **(best(peers, found) if name == OURS else {}),
    )
