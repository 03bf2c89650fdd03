"""One recovery from inside: what each process did around a fault, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass

from hpresil.telemetry.recovery import Recovery
from hpresil.telemetry.report.changes import REASONS, counted
from hpresil.telemetry.report.drawing import Axes, Box, Figure, Item, Line, Words, seconds, text_width
from hpresil.telemetry.story import Activity, Process, Story, why_lost

LEFT, TOP, RIGHT = 150.0, 48.0, 930.0
HIGH, THIN = 22.0, 13.0
KINDS = {
    "slot": "compute", "data": "compute", "standby step": "compute",
    "reduce": "exchange", "vote": "exchange",
    "apply": "apply", "commit": "apply",
    "wait": "wait", "standby": "wait",
    "view": "regroup", "regroup": "regroup",
    "serve": "state", "seal": "state", "restore": "state", "save": "state", "map frames": "state",
    "import": "start", "build": "start", "track": "start", "join": "start",
    "notice": "agent", "decide": "agent", "start worker": "agent", "grow frames": "agent",
}  # fmt: skip
"""Which colour a span has; those without one ("step") only hold others."""

MEANINGS = {
    "compute": "computing a slot",
    "exchange": "reduction and vote",
    "apply": "optimizer and commit",
    "wait": "waiting",
    "regroup": "building the group",
    "state": "copying state",
    "start": "starting up",
    "agent": "noticing, deciding, starting workers",
    "fault": "fault",
}
PHASES = (
    ("detect", "detect_ms"),
    ("regroup", "regroup_ms"),
    ("restore", "restore_ms"),
    ("first step", "first_step_ms"),
)


@dataclass(frozen=True)
class Row:
    """One line of the figure."""

    label: str
    activities: list[Activity]
    high: float
    main: bool


def recovery(story: Story, change: Recovery, number_: int) -> Figure | None:
    """Return the figure of one change; None if nobody's spans are there or it has not ended."""
    if change.total_ms is None:
        return None
    begin, end = window(change)
    rows = [row for process in story.processes for row in _rows(story, process, change, begin, end)]
    if not rows:
        return None
    high = sum(row.high + 3 for row in rows)
    axes = Axes(LEFT, TOP, RIGHT - LEFT, high, (begin - change.at) * 1e3, (end - change.at) * 1e3)
    items: list[Item] = [*_phase_bands(change, axes), *axes.x_axis("milliseconds since the fault")]
    if not change.workers:
        items[-1] = Words(
            axes.left + axes.width / 2, axes.bottom + 36, "milliseconds since the view", anchor="middle"
        )
    used: set[str] = set()
    top = axes.top
    for row in rows:
        size = 12.0 if row.main else 10.5
        role = "ink" if row.main else "muted"
        items.append(Words(LEFT - 10, top + row.high / 2 + 4, row.label, role, size, "end"))
        for activity in row.activities:
            used.add(KINDS[activity.name])
            items.append(_bar(activity, axes, top, row.high, change))
        items += _death(story, row, axes, top, change)
        top += row.high + 3
    if axes.x(0.0) >= axes.left and change.workers:
        items.append(
            Line(
                [(axes.x(0.0), axes.top - 6), (axes.x(0.0), axes.bottom)],
                "fault",
                1.5,
                dashed=True,
                tip="fault",
            )
        )
    used |= {"fault"} if change.workers else set()
    legend = [(role, meaning) for role, meaning in MEANINGS.items() if role in used]
    return Figure(
        f"recovery-{number_}", _title(change), _note(change, begin), legend, axes.bottom + 46, items
    )


def window(change: Recovery) -> tuple[float, float]:
    """Return the time to show: the whole change, but of a long detection only its end."""
    total = (change.total_ms or 0.0) / 1e3
    rest = total - change.detect_ms / 1e3
    end = change.at + total + 0.12 * min(total, 4 * rest)
    detected = change.at + change.detect_ms / 1e3
    return max(change.at - 0.25 * rest, detected - 1.5 * rest), end


def _rows(story: Story, process: Process, change: Recovery, begin: float, end: float) -> list[Row]:
    seen: dict[int, list[Activity]] = {}
    for activity in process.activities:
        if (
            activity.name in KINDS
            and activity.end > begin
            and activity.begin < end
            and activity.name != "data"
        ):
            seen.setdefault(activity.track, []).append(activity)
    rows = []
    for track, activities in sorted(seen.items(), key=lambda item: process.tracks[item[0]] != "MainThread"):
        main = process.tracks[track] == "MainThread"
        text = process.tracks[track].removeprefix("hpresil-")
        if main:
            text = "agent" if process.worker < 0 else _called(story, process.worker, change)
        rows.append(Row(text, activities, HIGH if main else THIN, main))
    return rows


def _called(story: Story, worker: int, change: Recovery) -> str:
    before = story.place(worker, change.at)[0]
    after = story.place(worker, change.at + (change.total_ms or 0.0) / 1e3)[0]
    rank = after if after >= 0 else before
    return f"worker {worker}, rank {rank}" if rank >= 0 else f"worker {worker}, spare"


def _bar(activity: Activity, axes: Axes, top: float, high: float, change: Recovery) -> Box:
    first, last = ((t - change.at) * 1e3 for t in (activity.begin, activity.end))
    x, right = max(axes.left, axes.x(first)), min(axes.right, axes.x(last))
    parts = [activity.name]
    parts += [f"slot {activity.slot}"] if activity.slot >= 0 else []
    parts += [f"step {activity.step}"] if activity.step >= 0 else []
    parts += [seconds(activity.end - activity.begin)]
    parts += ["cut off"] if activity.cut else []
    gap = 0.75 if right - x > 3 else 0.0
    return Box(x, top, max(0.75, right - x - gap), high, KINDS[activity.name], ", ".join(parts))


def _death(story: Story, row: Row, axes: Axes, top: float, change: Recovery) -> list[Item]:
    for event in story.all("WorkerLost"):
        if (
            row.main
            and row.label.startswith(f"worker {event['worker']},")
            and event["worker"] in change.workers
        ):
            x = axes.x((event["t"] - change.at) * 1e3)
            y, tip = top + row.high / 2, f"{why_lost(event)}, noticed here"
            return [
                Line([(x - 5, y - 5), (x + 5, y + 5)], "fault", 2.5, tip=tip),
                Line([(x - 5, y + 5), (x + 5, y - 5)], "fault", 2.5, tip=tip),
            ]
    return []


def _phase_bands(change: Recovery, axes: Axes) -> list[Item]:
    """Return the phases as bands behind the rows, named above."""
    items: list[Item] = []
    at, dark = 0.0, False
    free = axes.left
    for name, key in PHASES:
        length = getattr(change, key) or 0.0
        x, right = max(axes.left, axes.x(at)), axes.x(at + length)
        at += length
        if length <= 0 or right < axes.left:
            continue
        dark = not dark
        items.append(Box(x, axes.top - 6, right - x, axes.height + 6, "grid", opacity=0.75 if dark else 0.3))
        items.append(Line([(right, axes.top - 6), (right, axes.bottom)], "muted", 0.75))
        words = f"{name} {seconds(length / 1e3)}"
        start = max(
            free, min(x + (right - x) / 2 - text_width(words, 11) / 2, axes.right - text_width(words, 11))
        )
        low = start < x - 2 or start + text_width(words, 11) > right + 2
        items.append(Words(start, axes.top - (26 if low else 12), words, "ink", 11))
        free = start + text_width(words, 11) + 10
    return items


def _title(change: Recovery) -> str:
    total, generation = seconds((change.total_ms or 0.0) / 1e3), f"Generation {change.generation}"
    redone = f"{counted(change.steps_redone, 'step')} redone" if change.steps_redone else "no step redone"
    if not change.workers:
        what = {"grown": "the group grows", "handed over": "the group shrinks, as asked for"}.get(
            change.kind, "the group is re-formed"
        )
        return f"{generation}: {what} within {total}, {redone}"
    who = " and ".join(f"worker {worker}" for worker in change.workers)
    what = REASONS.get(change.kind, change.kind)
    return f"{generation}: {who} {what}; {total} to the next step, {redone}"


def _note(change: Recovery, begin: float) -> str:
    note = "What each process did; rows without a name of a worker are its threads."
    if begin > change.at:
        took = seconds(change.detect_ms / 1e3)
        note += f" The picture begins {seconds(begin - change.at)} after the fault: noticing it took {took}."
    return note
