"""The picture of the model's rows: goodput over the number of GPUs, with what it would be if a constant were
another one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.plot_style import COLOURS, INK, figure
from bench.rows import Row
from matplotlib.figure import Figure

METRIC, BY = "goodput", "goodput by "
COLUMNS, ROW_INCHES = 2, 3.0
SCALE = re.compile(r"model-(\d+)k")


def goodput(title: str, taken: Sequence[Row], caption: str) -> Figure:
    """Return a panel for each constant that was varied: lines as expected, bands as far as it moves them."""
    varied = list(dict.fromkeys(one.metric for one in taken if one.metric.startswith(BY)))
    systems = list(dict.fromkeys(one.contender for one in taken if one.metric == METRIC))
    lines = -(-len(varied) // COLUMNS)
    picture = figure(1.0 + ROW_INCHES * lines, f"{title}: a model, not a measurement", caption)
    first = None
    for place, metric in enumerate(varied):
        axes = first = picture.add_subplot(lines, min(COLUMNS, len(varied)), place + 1, sharey=first)
        for colour, system in zip(COLOURS, systems, strict=False):
            gpus, share, _, _ = _points(taken, system, METRIC)
            axes.plot(gpus, share, color=colour, label=system)
            gpus, _, least, most = _points(taken, system, metric)
            axes.fill_between(gpus, least, most, color=colour, alpha=0.12, linewidth=0)
            for edge in (least, most):  # bands may lie upon each other
                axes.plot(gpus, edge, color=colour, linewidth=0.8, linestyle="dotted")
        axes.set_xscale("log")
        axes.set_xticks(gpus, [f"{each / 1000:g}k" for each in gpus])
        axes.minorticks_off()
        axes.set_xlabel("GPUs", fontsize=8)
        axes.set_title(f"line: expected; band: {metric.removeprefix(BY)}", fontsize=8, color=INK)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if first is not None:
        picture.axes[0].set_ylabel("share of the time in steps that count", fontsize=8)
        picture.axes[0].legend(loc="lower left", fontsize=8, frameon=False)
    return picture


def _points(taken: Sequence[Row], system: str, metric: str) -> list[list[float]]:
    """Return the GPUs of the scales in their order, and what was expected at each, at least, and at most."""
    found = []
    for one in taken:
        scale = SCALE.fullmatch(one.case)
        if scale and (one.contender, one.metric) == (system, metric):
            found.append((1000.0 * int(scale[1]), *map(float, (one.median, one.min, one.max))))
    return [list(column) for column in zip(*sorted(found), strict=True)]
