"""The changes of a job's group as marks on a figure: what happened, when, at which step."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hpresil.telemetry.report.drawing import Axes, Item, Line, Words, text_width
from hpresil.telemetry.story import Story

MOST_LABELS = 14
ROW = 15.0
REASONS = {
    "killed": "killed",
    "hung": "hung",
    "exited": "exited",
    "ended": "lost",
    "grown": "group grows",
    "handed over": "group shrinks",
}


@dataclass(frozen=True)
class Mark:
    """One change. ``t`` in monotonic seconds; ``step``: the first one that was completed after it."""

    t: float
    step: int
    words: str
    fault: bool


def marks(story: Story) -> list[Mark]:
    """Return all changes of the group, in order."""
    completed = story.all("StepCompleted")
    times = [event["t"] for event in completed]
    found = []
    for recovery in story.recoveries:
        place = bisect_right(times, recovery.at)
        step = completed[place]["step"] if place < len(completed) else _newest(story) + 1
        words = REASONS.get(recovery.kind, recovery.kind)
        if recovery.workers:
            who = " and ".join(map(str, recovery.workers))
            words = f"worker {who} {words}"
        found.append(Mark(recovery.at, step, words, bool(recovery.workers)))
    return found


def _newest(story: Story) -> int:
    return max((event["step"] for event in story.all("StepCommitted")), default=-1)


def drawn(axes: Axes, where: list[tuple[float, Mark]]) -> list[Item]:
    """Return lines across ``axes`` at the given places, with words above as far as there is room.

    Args:
        axes: Where; above its top there must be room for `rows_above` rows.
        where: (value on the x axis, mark), ascending.
    """
    items: list[Item] = []
    free = [axes.left - 50.0] * 3  # where the next words may begin, for each row
    for value, mark in where:
        x, role = axes.x(value), "fault" if mark.fault else "resize"
        items.append(Line([(x, axes.top - 4), (x, axes.bottom)], role, 1.5, dashed=True, tip=mark.words))
        if len(where) > MOST_LABELS:
            continue
        width = text_width(mark.words, 11.5)
        start = min(max(x - width / 2, axes.left), axes.right - width)
        row = next((n for n, end in enumerate(free) if end <= start), None)
        if row is not None:
            free[row] = start + width + 8
            items.append(Words(start, axes.top - 9 - ROW * row, mark.words, role, 11.5))
    return items


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
