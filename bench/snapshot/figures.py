"""What one trainer's marks say about its method: medians over the snapshots, or pairs of blocks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.contenders import Mark
from bench.snapshot.contenders import BUSY_CORES

METRICS = {
    "idle": {"blocked_s": "s", "blocked_at_once_s": "s", "done_s": "s"},
    "busy": {"step_s": "s", "step_to_none": "1", "blocked_s": "s"},
}
"""Units by metric, by what the trainer does.

    blocked_s          idle: how long the training thread is blocked if the state may change 0.5 s after the
                       snapshot was begun; busy: how long of each step
    blocked_at_once_s  the same if the state is to change at once
    done_s             from the begin until the snapshot is complete, if that is waited for
    step_s             a step with a snapshot after it
    step_to_none       that over a step without, from neighbouring blocks of the same process
"""


def figures(trainer: str, marks: Sequence[Mark]) -> dict[str, float]:
    """Return the figures of one process.

    Raises:
        ValueError: Its method cannot run there, or did not come to its end.
    """
    for mark in marks:
        if mark["what"] == "cannot":
            raise ValueError(mark["why"])
    if not any(mark["what"] == "checked" for mark in marks):
        raise ValueError("it ended before its last snapshot was looked at")
    return _idle(marks) if trainer == "idle" else _busy(marks)


def _idle(marks: Sequence[Mark]) -> dict[str, float]:
    later, at_once = (
        [mark for mark in marks if mark["what"] == "save" and mark["when"] == when]
        for when in ("later", "at once")
    )
    return {
        "blocked_s": statistics.median(mark["blocked_s"] for mark in later),
        "blocked_at_once_s": statistics.median(mark["blocked_s"] for mark in at_once),
        "done_s": statistics.median(mark["done_s"] for mark in at_once),
    }


def _busy(marks: Sequence[Mark]) -> dict[str, float]:
    """A step that pays for several is no outlier, so blocks count by their means."""
    pairs = [mark for mark in marks if mark["what"] == "pair"]
    if more := {pair["cores"] for pair in pairs} - {BUSY_CORES}:
        raise ValueError(f"its trainer had {max(more)} cores and computes on {BUSY_CORES}")
    plain, steps, blocked = (
        [statistics.fmean(pair[part]) for pair in pairs] for part in ("plain", "steps", "blocked")
    )
    return {
        "step_s": statistics.median(steps),
        "step_to_none": statistics.median(a / b for a, b in zip(steps, plain, strict=True)),
        "blocked_s": statistics.median(blocked),
    }
