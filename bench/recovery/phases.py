"""What a fault cost, from the marks of the training processes: the same rules for every contender.

A *full-group step* is one that as many ranks as before have done together, also one that had been done before
the fault and is done again. The group has *caught up* when it has done one that is not before the step which
the fault interrupted. The *lineage* is what the final state was computed from: of every step the last time
that it was done. A part of a step that is not in it was lost; what was computed and thrown away was redone.
Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WARM_UP_STEPS = 6
Mark = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Seconds from the fault, and counts; None where a contender leaves no such mark."""

    healthy_step_s: float
    noticed_s: float | None
    members_known_s: float | None
    regrouped_s: float | None
    restored_s: float | None
    first_full_group_step_s: float
    caught_up_s: float
    over_a_step_s: float
    steps_redone: int
    parts_lost: int
    parts_repeated: int
    losses: dict[tuple[int, int], str]
    """The bits of the loss of each (step, part) in the lineage."""


def cost(
    marks: Sequence[Mark], fault_at: float, *, workers: int, left: int, steps: int, fault_step: int
) -> Cost:
    """Return what the fault cost; ``left`` workers make a full group after it, a step has ``workers`` parts.

    Raises:
        ValueError: The group was never whole again.
    """
    done = [mark for mark in marks if mark["what"] == "step"]
    before = [mark for mark in done if mark["t"] < fault_at]
    after = [mark for mark in done if mark["t"] >= fault_at]
    losses = lineage(done)
    healthy_s = healthy_step(before, fault_step)
    full_s = first_full_step(after, fault_step, left) - fault_at
    return Cost(
        healthy_step_s=healthy_s,
        noticed_s=_first(marks, "noticed", fault_at),
        members_known_s=_last(marks, "members", fault_at),
        regrouped_s=_last(marks, "group", fault_at),
        restored_s=_last(marks, "restored", fault_at),
        first_full_group_step_s=full_s,
        caught_up_s=first_full_step(after, fault_step, left, begin=fault_step) - fault_at,
        over_a_step_s=full_s - healthy_s,
        steps_redone=_redone(before, after),
        parts_lost=sum((step, part) not in losses for step in range(steps) for part in range(workers)),
        parts_repeated=sum(len(mark["parts"]) for mark in _newest(done)) - len(losses),
        losses=losses,
    )


def healthy_step(done: Sequence[Mark], until: int) -> float:
    """Return the median time between the steps of rank 0, in seconds, without those at the beginning.

    Raises:
        ValueError: There are not two of them.
    """
    times = [mark["t"] for mark in done if mark["rank"] == 0 and WARM_UP_STEPS <= mark["step"] < until]
    if len(times) < 2:
        raise ValueError(f"rank 0 left {len(times)} marks of steps {WARM_UP_STEPS} to {until - 1}, not two")
    return statistics.median(b - a for a, b in pairwise(times))


def lineage(done: Sequence[Mark]) -> dict[tuple[int, int], str]:
    """Return the loss of each part of each step, the last time that the step was done by anybody."""
    return {(mark["step"], int(part)): loss for mark in _newest(done) for part, loss in mark["parts"].items()}


def _newest(done: Sequence[Mark]) -> list[Mark]:
    """Return the marks of every step's last time."""
    newest: dict[int, list[Mark]] = {}
    for mark in done:
        again = newest.get(mark["step"])
        if again is None or any(mark["rank"] == other["rank"] for other in again):
            newest[mark["step"]] = [mark]
        else:
            again.append(mark)
    return [mark for those in newest.values() for mark in those]


def _redone(before: Sequence[Mark], after: Sequence[Mark]) -> int:
    """Return how many steps some rank did on both sides of the fault."""
    done = {(mark["step"], mark["rank"]) for mark in before}
    return len({mark["step"] for mark in after if (mark["step"], mark["rank"]) in done})


def first_full_step(after: Sequence[Mark], fault_step: int, workers: int, begin: int = 0) -> float:
    """Return when the last member had done the first step that the whole group did together again.

    Args:
        begin: Steps before this one do not count.

    Raises:
        ValueError: There is none.
    """
    by_step: dict[int, list[Mark]] = {}
    for mark in after:
        if mark["step"] >= begin:
            by_step.setdefault(mark["step"], []).append(mark)
    whole = [
        max(mark["t"] for mark in those)
        for those in by_step.values()
        if len({mark["rank"] for mark in those if mark["world"] == workers}) == workers
    ]
    if whole:
        return float(min(whole))
    raise ValueError(f"no step after the fault at step {fault_step} was done by all {workers} workers")


def _first(marks: Sequence[Mark], what: str, since: float) -> float | None:
    return next((mark["t"] - since for mark in marks if mark["what"] == what and mark["t"] >= since), None)


def _last(marks: Sequence[Mark], what: str, since: float) -> float | None:
    """Return when every process had said it for the first time after the fault."""
    first: dict[int, float] = {}
    for mark in marks:
        if mark["what"] == what and mark["t"] >= since:
            first.setdefault(mark["pid"], mark["t"])
    return max(first.values()) - since if first else None
