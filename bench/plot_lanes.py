"""The picture of one recovery: a lane for each process, in milliseconds from the fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.lanes import BEFORE_S, BEYOND, STEPS, Bar, Lane
from bench.plot_style import INK, MUTED, WIDTH_INCHES, figure
from bench.trace import FAULT, WHOLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from hpresil.telemetry.report.recovery import MEANINGS

COLOURS = {
    "compute": "#56B4E9",
    "exchange": "#009E73",
    "apply": "#F0E442",
    "wait": "#DDDDDD",
    "regroup": "#E69F00",
    "state": "#CC79A7",
    "start": "#999999",
    "agent": "#0072B2",
    "fault": "#D55E00",
}
AROUND = "#F2F2F2"
MEANING = MEANINGS | {"compute": "computing", "fault": "ended by the fault"}
LINE_INCHES, STEP_LINES, GAP, FILLED = 0.34, 0.55, 0.35, 0.9
"""Heights: of a line, of that of the steps in lines, of what is between lanes, of a bar in its line."""
SIZE, SIZE_INSIDE = 7.0, 5.5
POINTS_A_CHARACTER = 0.6
"""Width of a character of a font of one point."""
PLOT_SHARE = 0.8
"""Which share of the picture's width the bars have, about."""


@dataclass(frozen=True)
class Part:
    """The part of time that is drawn, in seconds from the fault."""

    begin: float
    end: float

    def width(self, text: str, size: float) -> float:
        """Return how many seconds wide a text is, about."""
        points = PLOT_SHARE * WIDTH_INCHES * 72 / (self.end - self.begin)
        return len(text) * POINTS_A_CHARACTER * size / points


def draw(lanes: Sequence[Lane], length: float, title: str, caption: str) -> Figure:
    """Return the picture of a recovery that took ``length`` seconds."""
    high = sum(_height(line) for lane in lanes for line in lane.lines) + GAP * len(lanes)
    picture = figure(LINE_INCHES * high + 1.6, title, caption)
    axes = picture.add_subplot()
    part = Part(-BEFORE_S, length * (1 + BEYOND))
    top, middles = 0.0, []
    for lane in lanes:
        bottom = _lane(axes, top, lane, part)
        middles.append((top + bottom) / 2)
        top = bottom + GAP
        axes.axhline(top - GAP / 2, color="#CCCCCC", linewidth=0.6)
    axes.set_xlim(part.begin, part.end)
    axes.set_ylim(top - GAP / 2, -GAP)
    axes.set_yticks(middles, [lane.name for lane in lanes], fontsize=8)
    _moments(axes, length)
    kinds = {bar.kind for lane in lanes for bars in lane.lines.values() for bar in bars}
    patches = [Patch(color=COLOURS[kind], label=MEANING[kind]) for kind in COLOURS if kind in kinds]
    below = -0.55 / (LINE_INCHES * high)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, below)}
    axes.legend(handles=patches, ncols=4, fontsize=7, frameon=False, **place)
    return picture


def _height(line: str) -> float:
    return STEP_LINES if line == STEPS else 1.0


def _lane(axes: Axes, top: float, lane: Lane, part: Part) -> float:
    """Draw a process and return where its lane ends."""
    first = top
    for line, bars in lane.lines.items():
        for number, bar in enumerate(bars):
            _bar(axes, top, _height(line), bar, bars[number + 1 :], part)
        axes.text(part.end, top + _height(line) / 2, f" {line}", va="center", fontsize=6, color=MUTED)
        top += _height(line)
    if lane.hit:
        place = (first + top) / 2
        axes.plot(0, place, marker="X", markersize=9, color=COLOURS["fault"], zorder=6)
    return top


def _bar(axes: Axes, top: float, high: float, bar: Bar, later: Sequence[Bar], part: Part) -> None:
    """Draw a bar, in the lower half of the one that it lies in, with its name where there is room for it."""
    left, right = max(bar.begin, part.begin), min(bar.end, part.end)
    share = FILLED * high / 2**bar.depth
    bottom = top + FILLED * high - share
    colour = COLOURS.get(bar.kind, AROUND)
    thin = right - left < part.width(".", SIZE)  # an edge would hide it
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": colour if thin else "white", "linewidth": 0.5}
    axes.add_patch(Rectangle((left, bottom), right - left, share, zorder=3 + 0.01 * bar.depth, **look))
    holds = any(other.depth > bar.depth and other.begin < bar.end for other in later)
    free = min((other.begin for other in later if other.depth <= bar.depth), default=part.end)
    size = SIZE_INSIDE if bar.depth else SIZE
    wide = part.width(bar.name, size)
    text: dict[str, Any] = {"y": bottom + share / (4 if holds else 2), "fontsize": size, "va": "center"}
    if wide < right - left:
        ink = "white" if bar.kind == "agent" else INK
        axes.text(x=(left + right) / 2, s=bar.name, ha="center", color=ink, zorder=4, **text)
    elif wide < free - right and not bar.depth and right > part.begin and not bar.hit:
        axes.text(x=right, s=f" {bar.name}", ha="left", color=MUTED, zorder=4, **text)


def _moments(axes: Axes, length: float) -> None:
    """Mark the fault and the end of the recovery, and count from the fault."""
    for at, name in ((0.0, FAULT), (length, f"{WHOLE}: {1e3 * length:.0f} ms")):
        axes.axvline(at, color=COLOURS["fault"] if name == FAULT else INK, linewidth=1.2, zorder=5)
        axes.text(at, axes.get_ylim()[1], f"{name} ", fontsize=7, ha="center", va="bottom", color=INK)
    axes.xaxis.set_major_formatter(lambda second, _: f"{1e3 * second:g}")
    axes.set_xlabel("milliseconds from the fault", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
