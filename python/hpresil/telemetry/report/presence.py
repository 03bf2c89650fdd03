"""Who was in when: one row for each worker, from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass

from hpresil.telemetry.report.changes import counted
from hpresil.telemetry.report.drawing import Axes, Box, Figure, Item, Line, Words, seconds, text_width
from hpresil.telemetry.story import Story, why_lost

LEFT, TOP, RIGHT = 100.0, 12.0, 930.0
MOST_ROWS = 64
LEGEND = (
    ("start", "starting"),
    ("spare", "spare, ready"),
    ("compute", "member, with its rank"),
    ("fault", "lost"),
)


@dataclass(frozen=True)
class Stretch:
    """A time in which a worker was one thing."""

    begin: float
    end: float
    role: str
    words: str


def presence(story: Story) -> Figure | None:
    """Return the figure; None if no worker was started."""
    rows = {event["worker"]: event for event in story.all("WorkerStarted")}
    if not rows:
        return None
    ends = {event["worker"]: event for event in story.all("WorkerLost", "WorkerLeft")}
    shown = list(rows)[:MOST_ROWS]
    high = 26.0 if len(shown) <= 16 else 14.0
    axes = Axes(LEFT, TOP, RIGHT - LEFT, high * len(shown), 0.0, story.end - story.begin)
    items: list[Item] = [*axes.x_axis("seconds since the start")]
    for row, worker in enumerate(shown):
        top, end = axes.top + high * row, ends.get(worker)
        items.append(Words(LEFT - 10, top + high / 2 + 4, f"worker {worker}", "ink", anchor="end"))
        until = story.end if end is None else end["t"]
        for part in stretches(story, worker, rows[worker]["t"], until):
            items += _bar(story, axes, top, high, worker, part)
        if end is not None and end["event"] == "WorkerLost":
            items += _cross(axes.x(until - story.begin), top + high / 2, why_lost(end))
    lost = sum(event["event"] == "WorkerLost" for event in ends.values())
    started = len(rows)
    views = story.all("ViewInstalled")
    sizes = [len(view["members"]) for view in views] or [0]
    title = f"{counted(started, 'worker')} came, {lost or 'none'} {'was' if lost < 2 else 'were'} lost; "
    title += "the group had " + (
        f"{min(sizes)} to {max(sizes)} members" if min(sizes) < max(sizes) else counted(max(sizes), "member")
    )
    title += f" in {counted(len(views), 'generation')}"
    note = "A worker id is never used again; a replacement is a new worker."
    note += f" The first {MOST_ROWS} are shown." if started > MOST_ROWS else ""
    return Figure("workers", title, note, LEGEND, axes.bottom + 46, items)


def stretches(story: Story, worker: int, begin: float, end: float) -> list[Stretch]:
    """Return what a worker was from ``begin`` to ``end``, without a gap."""
    found: list[Stretch] = []
    at, role, words = begin, "start", "starting"
    for event in story.events:
        t, now = event["t"], (role, words)
        if t > end:
            break
        if event["event"] == "WorkerReady" and event["worker"] == worker and role == "start":
            warm = not event.get("pristine", False)
            now = ("spare", "spare") if warm else now
        elif event["event"] == "ViewInstalled":
            members = event["members"]
            if worker in members:
                now = ("compute", f"rank {members.index(worker)}")
            elif role == "compute":
                now = ("spare", "handed over")
        if now != (role, words):
            found.append(Stretch(at, max(at, t), role, words))
            at, (role, words) = max(at, t), now
    found.append(Stretch(at, max(at, end), role, words))
    return found


def _bar(story: Story, axes: Axes, top: float, high: float, worker: int, part: Stretch) -> list[Item]:
    x, right = axes.x(part.begin - story.begin), axes.x(part.end - story.begin)
    tip = f"worker {worker}: {part.words}, {seconds(part.end - part.begin)}"
    items: list[Item] = [Box(x, top + 3, max(1.0, right - x - 1), high - 6, part.role, tip)]
    if part.role == "compute" and text_width(part.words, 11) + 8 < right - x and high > 20:
        items.append(Words(x + 6, top + high / 2 + 4, part.words, "surface", 11, bold=True))
    return items


def _cross(x: float, y: float, tip: str) -> list[Item]:
    return [
        Line([(x - 5, y - 5), (x + 5, y + 5)], "fault", 2.5, tip=tip),
        Line([(x - 5, y + 5), (x + 5, y - 5)], "fault", 2.5, tip=tip),
    ]
