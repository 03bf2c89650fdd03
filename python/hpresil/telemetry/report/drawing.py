"""Figures as data: lines, boxes and words with colour *roles*, drawn as SVG or as PNG from the same list.

Coordinates are pixels of a canvas with the origin at the top left. A role is a meaning ("compute", "fault"),
which a theme turns into a colour; so one drawing serves a light and a dark page, and a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

WIDTH = 960
ROLES = {  # light, dark
    "surface": ("#ffffff", "#1a1a19"),
    "ink": ("#0b0b0b", "#ffffff"),
    "muted": ("#5f5e58", "#b5b4ac"),
    "grid": ("#e4e3dd", "#383835"),
    "fault": ("#d03b3b", "#ff6b6b"),
    "resize": ("#4a3aa7", "#a99ff2"),
    "loss": ("#2a78d6", "#4f9cf0"),
    "compute": ("#2a78d6", "#3987e5"),
    "exchange": ("#1baf7a", "#199e70"),
    "apply": ("#eda100", "#c98500"),
    "regroup": ("#eb6834", "#d95926"),
    "state": ("#4a3aa7", "#9085e9"),
    "start": ("#e87ba4", "#d55181"),
    "agent": ("#00726b", "#33a79f"),
    "wait": ("#cfcec6", "#55544f"),
    "spare": ("#a9cdf5", "#28496d"),
}
"""Colours by role: on a light and on a dark surface."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[tuple[float, float]]
    role: str
    width: float = 1.0
    dashed: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Box:
    """A filled rectangle; ``tip`` is shown when the pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    role: str
    tip: str = ""
    opacity: float = 1.0


@dataclass(frozen=True)
class Words:
    """A line of text; ``y`` is its baseline."""

    x: float
    y: float
    text: str
    role: str = "muted"
    size: float = 12.0
    anchor: Anchor = "start"
    bold: bool = False


Item = Line | Box | Words


@dataclass(frozen=True)
class Figure:
    """A drawing with what it says.

    Attributes:
        name: For file names.
        title: The finding, as a sentence.
        note: What is drawn, and how to read it.
        legend: (role, meaning).
        height: Of the canvas, whose width is `WIDTH`.
        items: What is drawn, in this order.
    """

    name: str
    title: str
    note: str
    legend: Sequence[tuple[str, str]]
    height: float
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Axes:
    """A rectangle of the canvas with a scale on each side."""

    left: float
    top: float
    width: float
    height: float
    x_from: float
    x_to: float
    y_from: float = 0.0
    y_to: float = 1.0
    y_log: bool = False

    def x(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.left + (value - self.x_from) / ((self.x_to - self.x_from) or 1.0) * self.width

    def y(self, value: float) -> float:
        """Return the pixel of a value; larger ones are higher."""
        low, high = self.y_from, self.y_to
        if self.y_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.bottom - (value - low) / ((high - low) or 1.0) * self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    def x_axis(self, label: str, *, whole: bool = False) -> list[Item]:
        """Return grid lines, numbers and the label below."""
        items: list[Item] = []
        for value in ticks(self.x_from, self.x_to, 10, whole=whole):
            x = self.x(value)
            items.append(Line([(x, self.top), (x, self.bottom)], "grid"))
            items.append(Words(x, self.bottom + 17, number(value), anchor="middle"))
        items.append(Line([(self.left, self.bottom), (self.right, self.bottom)], "muted"))
        items.append(Words(self.left + self.width / 2, self.bottom + 36, label, "muted", anchor="middle"))
        return items

    def y_axis(self, label: str) -> list[Item]:
        """Return grid lines and numbers at the left, the label above."""
        items: list[Item] = []
        for value in (log_ticks if self.y_log else ticks)(self.y_from, self.y_to, 5):
            y = self.y(value)
            items.append(Line([(self.left, y), (self.right, y)], "grid"))
            items.append(Words(self.left - 8, y + 4, number(value), anchor="end"))
        items.append(Words(self.left - 8, self.top - 10, label, "muted", anchor="end"))
        return items


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return round numbers from ``low`` to ``high``, at most about ``most`` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between two positive ones for a logarithmic scale, at least two of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        found = [m * 10.0**d for d in decades for m in multiples if low <= m * 10.0**d <= high]
        if len(found) >= min(most, 4):
            return found[:: -(-len(found) // (2 * most))]
    return found if len(found) >= 2 else [low, high]


def number(value: float) -> str:
    """Return a number for an axis or a table, without noise."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """Return a duration in the unit that fits."""
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms" if value >= 0.01 else f"{value * 1e3:.1f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def text_width(text: str, size: float = 12.0) -> float:
    """Return about how many pixels wide a text is."""
    return 0.56 * size * len(text)
