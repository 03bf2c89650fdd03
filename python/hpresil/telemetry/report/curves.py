"""The loss over the steps, and the speed over the time, with every fault and resize marked."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

from hpresil.telemetry.report.changes import ROW, Mark, counted, drawn, marks
from hpresil.telemetry.report.drawing import Axes, Figure, Item, Line, number
from hpresil.telemetry.story import Story

MOST_POINTS = 1500
BINS = 120
LEFT, RIGHT, PLOT = 76.0, 930.0, 220.0
LOG_FROM = 8.0  # the highest loss is so many times the lowest


def loss(story: Story) -> Figure | None:
    """Return the loss curve; None without a committed step."""
    points = [
        (e["step"], e["loss"]) for e in story.all("StepCommitted") if math.isfinite(e.get("loss", math.nan))
    ]
    if len(points) < 2:
        return None
    seen = marks(story)
    axes = _loss_axes(points, _top(seen))
    items: list[Item] = [*axes.y_axis("loss"), *axes.x_axis("step", whole=True)]
    items.append(Line([(axes.x(x), axes.y(y)) for x, y in thinned(points)], "loss", 2.0))
    items += drawn(axes, [(min(max(mark.step, points[0][0]), points[-1][0]), mark) for mark in seen])
    faults = sum(mark.fault for mark in seen)
    resizes = len(seen) - faults
    steps = [step for step, _ in points]
    whole = steps == list(range(steps[0], steps[0] + len(steps)))
    ended = "each committed once" if whole else "with steps missing or repeated"
    happened = [counted(faults, "fault")] if faults else []
    happened += [f"{counted(resizes, 'change')} of size"] if resizes else []
    title = (
        f"The loss goes from {number(points[0][1])} to {number(points[-1][1])} in "
        f"{counted(len(steps), 'step')}, {ended}"
        + (f", through {' and '.join(happened)}" if happened else ", without a fault")
    )
    note = "Loss of each committed step, the mean over its whole batch."
    note += " A dashed line is the step in which something happened." if seen else ""
    note += " The scale is logarithmic." if axes.y_log else ""
    return Figure("loss", title, note, [("loss", "loss"), *_legend(seen)], axes.bottom + 46, items)


def _loss_axes(points: list[tuple[float, float]], top: float) -> Axes:
    low, high = min(y for _, y in points), max(y for _, y in points)
    log = low > 0 and high / low > LOG_FROM
    margin = 0.06 * (high - low) or abs(high) * 0.01 or 1.0
    low, high = (low / 1.15, high * 1.15) if log else (low - margin, high + margin)
    return Axes(LEFT, top, RIGHT - LEFT, PLOT, points[0][0], points[-1][0], low, high, log)


def _top(seen: list[Mark]) -> float:
    return 32.0 + ROW * min(2, max(0, len(seen) - 1))


def _legend(seen: list[Mark]) -> list[tuple[str, str]]:
    faults = [("fault", "fault")] if any(mark.fault for mark in seen) else []
    return faults + ([("resize", "group grows")] if any(not mark.fault for mark in seen) else [])


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points that look the same: the lowest and highest of each stretch."""
    stretch = -(-2 * len(points) // MOST_POINTS)
    if stretch <= 2:
        return points
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def speed(story: Story) -> Figure | None:
    """Return the steps per second over the job's time; None with fewer than three steps."""
    times = [event["t"] - story.begin for event in story.all("StepCompleted")]
    if len(times) < 3:
        return None
    rates = _rates(times)
    top = 1.08 * max(rate for _, _, rate in rates)
    seen = marks(story)
    axes = Axes(LEFT, _top(seen), RIGHT - LEFT, PLOT, 0.0, story.end - story.begin, 0.0, top)
    items: list[Item] = [*axes.y_axis("steps/s"), *axes.x_axis("seconds since the start")]
    corners = [(axes.x(t), axes.y(rate)) for a, b, rate in rates for t in (a, b)]
    items.append(Line([(corners[0][0], axes.y(0)), *corners, (corners[-1][0], axes.y(0))], "loss", 2.0))
    items += drawn(axes, [(min(max(mark.t - story.begin, 0.0), axes.x_to), mark) for mark in seen])
    gaps = [b - a for a, b in pairwise(times)]
    middle, longest = median(gaps), max(gaps)
    title = (
        f"{number(1 / middle)} steps a second in the median; the longest wait for a step was {longest:.2f} s"
    )
    title += f", {longest / middle:.1f} times the median"
    note = "Completed steps per second" + (
        ", averaged over stretches of equal length." if len(gaps) > BINS else "."
    )
    return Figure(
        "speed", title, note, [("loss", "steps per second"), *_legend(seen)], axes.bottom + 46, items
    )


def _rates(times: list[float]) -> list[tuple[float, float, float]]:
    """Return (from, to, steps per second) without a gap."""
    if len(times) <= BINS + 1:
        return [(a, b, 1 / max(b - a, 1e-9)) for a, b in pairwise(times)]
    width = (times[-1] - times[0]) / BINS
    counts = [0] * BINS
    for t in times[1:]:
        counts[min(BINS - 1, int((t - times[0]) / width))] += 1
    return [(times[0] + i * width, times[0] + (i + 1) * width, n / width) for i, n in enumerate(counts)]
