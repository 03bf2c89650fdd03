"""A figure as a PNG file, drawn by matplotlib from the list that the SVG is made of.

matplotlib (the extra ``report``) because it brings its own fonts and needs neither a display nor a
browser; it is imported here and nowhere else. It only draws what `drawing` has laid out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hpresil.base.errors import ConfigError
from hpresil.telemetry.report.drawing import ROLES, WIDTH, Box, Figure, Item, Line, Words, text_width

DOTS_PER_INCH = 96
SCALE = 2  # pixels of the picture for one of the drawing
POINTS = 72 / DOTS_PER_INCH


def write(figures: list[Figure], directory: Path) -> list[Path]:
    """Write each figure to ``directory/NAME.png``, with its title and legend; return the paths.

    Raises:
        ConfigError: matplotlib is not installed, or the directory cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ConfigError(
            f"--png needs matplotlib ({error}); install it with: pip install 'hpresil[report]'"
        ) from error
    paths = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for figure in map(with_heading, figures):
            inches = (WIDTH / DOTS_PER_INCH, figure.height / DOTS_PER_INCH)
            canvas = Canvas(figsize=inches, dpi=DOTS_PER_INCH * SCALE, facecolor=_colour("surface"))
            FigureCanvasAgg(canvas)
            axes = canvas.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.set_xlim(0, WIDTH)
            axes.set_ylim(figure.height, 0)
            axes.set_axis_off()
            for order, item in enumerate(figure.items):
                _draw(axes, item, order)
            paths.append(directory / f"{figure.name}.png")
            canvas.savefig(paths[-1])
    except OSError as error:
        raise ConfigError(f"--png {directory} cannot be written: {error.strerror}") from error
    return paths


def with_heading(figure: Figure) -> Figure:
    """Return the figure with its title and its legend drawn above it."""
    rows: list[list[tuple[str, str]]] = [[]]
    x = 16.0
    for entry in figure.legend:
        width = text_width(entry[1]) + 40
        if x + width > WIDTH and rows[-1]:
            rows.append([])
            x = 16.0
        rows[-1].append(entry)
        x += width
    room = 44.0 + 20 * len(rows) if figure.legend else 44.0
    items: list[Item] = [Words(16, 28, figure.title, "ink", 16, bold=True)]
    for number, row in enumerate(rows):
        x, y = 16.0, 52.0 + 20 * number
        for role, meaning in row:
            items += [Box(x, y - 9, 12, 10, role), Words(x + 18, y, meaning)]
            x += text_width(meaning) + 40
    items += [_moved(item, room) for item in figure.items]
    return replace(figure, height=figure.height + room, items=items)


def _moved(item: Item, down: float) -> Item:
    if isinstance(item, Line):
        return replace(item, points=[(x, y + down) for x, y in item.points])
    return replace(item, y=item.y + down)


def _draw(axes: Any, item: Item, order: int) -> None:
    from matplotlib.patches import Rectangle

    colour = _colour(item.role)
    if isinstance(item, Line):
        xs, ys = zip(*item.points, strict=True)
        style = (0, (4, 3)) if item.dashed else "-"
        axes.plot(xs, ys, color=colour, linewidth=item.width * POINTS, linestyle=style, zorder=order)
    elif isinstance(item, Box):
        place = (item.x, item.y)
        box = Rectangle(place, item.width, item.height, facecolor=colour, alpha=item.opacity, zorder=order)
        axes.add_patch(box)
    else:
        side = {"start": "left", "middle": "center", "end": "right"}[item.anchor]
        weight = "bold" if item.bold else "normal"
        size = item.size * POINTS
        words = {"color": colour, "fontsize": size, "fontweight": weight, "zorder": order}
        axes.text(item.x, item.y, item.text, ha=side, va="baseline", parse_math=False, **words)


def _colour(role: str) -> str:
    return ROLES[role][0]
