"""The picture of the model's rows: goodput over the number of GPUs, with what it would be if a constant were
another one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.plot_style import COLOURS, INK, figure
from bench.rows import Row
from matplotlib.figure import Figure

METRIC, BY = "goodput", "goodput by "
SCALE = re.compile(r"model-(\d+)k")


def goodput(title: str, taken: Sequence[Row], caption: str) -> Figure:
    """Return a panel for each constant that was varied: lines as expected, bands as far as it moves them."""
    varied = list(dict.fromkeys(one.metric for one in taken if one.metric.startswith(BY)))
    systems = list(dict.fromkeys(one.contender for one in taken if one.metric == METRIC))
    picture = figure(4.2, f"{title}: a model, not a measurement", caption)
    first = None
    for place, metric in enumerate(varied):
        axes = first = picture.add_subplot(1, len(varied), place + 1, sharey=first)
        for colour, system in zip(COLOURS, systems, strict=False):
            line, band = _points(taken, system, METRIC), _points(taken, system, metric)
            axes.plot([gpus for gpus, _ in line], [one.median for _, one in line], color=colour, label=system)
            edges = [(gpus, one.min, one.max) for gpus, one in band]
            axes.fill_between(*map(list, zip(*edges, strict=True)), color=colour, alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlabel("GPUs", fontsize=8)
        axes.set_title(f"bands: {metric.removeprefix(BY)}", fontsize=8, color=INK)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if first is not None:
        picture.axes[0].set_ylabel("share of the time in steps that count", fontsize=8)
        handles, labels = first.get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return picture


def _points(taken: Sequence[Row], system: str, metric: str) -> list[tuple[int, Row]]:
    """Return (GPUs, row), in the order of the scales."""
    found = []
    for one in taken:
        scale = SCALE.fullmatch(one.case)
        if scale and (one.contender, one.metric) == (system, metric) and one.median is not None:
            found.append((1000 * int(scale[1]), one))
    return sorted(found, key=lambda point: point[0])
