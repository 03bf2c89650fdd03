"""`python -m bench plots RESULTS.json... [--out DIR]`: a picture of each case, as PNG and as SVG.

Drawn from the rows alone, so that a picture shows nothing that its results file does not hold. The same rows
give the same SVG to the byte. A contender without a figure has its line, with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any

from bench import rows
from bench.file_name import file_name
from bench.plot_model import goodput
from bench.plot_style import AMONG, INK, MUTED, OURS, figure, save, value
from bench.rows import Row
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WHOLE = "first_full_group_step_s"
PHASES = {
    "noticed_s": ("until the fault was noticed", "#0072B2"),
    "members_known_s": ("until the new members were known", "#F0E442"),
    "regrouped_s": ("until the group stood again", "#E69F00"),
    "restored_s": ("until the state was restored", "#009E73"),
    WHOLE: ("until the whole group had done a step", "#CC79A7"),
    "caught_up_s": ("until it had done the interrupted one", "#56B4E9"),
}
COUNTS = {
    "steps_redone": "steps redone",
    "parts_lost": "parts lost",
    "parts_repeated": "parts repeated",
    "losses_changed": "losses changed",
}
BAR, WHY_CHARACTERS = 0.62, 90
Metric = tuple[str, str]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench plots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: plots, beside the first file")
    args = parser.parse_args(arguments)
    out = args.out or args.results[0].parent / "plots"
    drawn: dict[str, Path] = {}
    try:
        for path in args.results:
            about, taken = rows.read(path)
            for name, picture in figures(taken, f"{path.name}: {rows.caption(about)}"):
                if name in drawn:
                    parser.error(f"{drawn[name]} and {path} both hold {name}: give them --outs of their own")
                drawn[name] = path
                print("\n".join(map(str, save(picture, out, name))))
    except ValueError as error:
        parser.error(str(error))
    return 0


def figures(taken: Sequence[Row], caption: str) -> Iterator[tuple[str, Figure]]:
    """Yield (name, picture) of each case; the model has one picture of all its cases."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for one in taken:
        cases.setdefault((one.suite, "goodput" if one.suite == "model" else one.case), []).append(one)
    for (suite, case), mine in cases.items():
        draw = {"recovery": recovery, "model": goodput}.get(suite, bars)
        yield file_name(suite, case), draw(f"{suite}: {case}", mine, caption)


# --------------------------------------------------------------------------------- a recovery


def recovery(title: str, taken: Sequence[Row], caption: str) -> Figure:
    """Return bars that begin at the fault, cut where a phase ended."""
    found = {(one.contender, one.metric): one for one in taken}
    names = list(dict.fromkeys(one.contender for one in taken))
    picture = figure(1.6 + 0.62 * len(names), title, caption)
    axes = picture.add_subplot()
    for line, name in enumerate(names):
        whole = found.get((name, WHOLE))
        if whole is None or whole.median is None:
            _reason(axes, line, whole)
            continue
        for begin, end, colour in segments(found, name):
            axes.barh(line, end - begin, BAR, left=begin, color=colour)
        _whisker(axes, line, whole)
    labels = [f"{name}\n{counts(found, name)}".strip() for name in names]
    _lines(axes, [found[name, WHOLE] for name in names if (name, WHOLE) in found], "healthy step")
    _frame(axes, labels, "seconds from the fault (median; whiskers: least and largest)")
    for text, colour in PHASES.values():
        axes.barh(0, 0, color=colour, label=text)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), ncols=3, fontsize=8, frameon=False)
    return picture


def segments(found: dict[Metric, Row], name: str) -> Iterator[tuple[float, float, str]]:
    """Yield (begin, end, colour) of each phase that left a mark, in the order of their medians."""
    ends = []
    for metric, (_, colour) in PHASES.items():
        one = found.get((name, metric))
        if one is not None and one.median is not None:
            ends.append((one.median, colour))
    ends.sort(key=lambda end: end[0])
    for (begin, _), (end, colour) in pairwise([(0.0, ""), *ends]):
        yield begin, end, colour


def counts(found: dict[Metric, Row], name: str) -> str:
    """Return what a recovery cost beside time, in words."""
    known = [(found.get((name, metric)), text) for metric, text in COUNTS.items()]
    return ", ".join(f"{one.median:g} {text}" for one, text in known if one and one.median is not None)


# --------------------------------------------------------------------------------- any other suite


def bars(title: str, taken: Sequence[Row], caption: str) -> Figure:
    """Return a panel for each metric, with a bar for each contender."""
    panels: dict[Metric, list[Row]] = {}
    for one in taken:
        panels.setdefault((one.metric, one.unit), []).append(one)
    heights = [0.8 + 0.32 * len(mine) for mine in panels.values()]
    picture = figure(0.7 + sum(heights), title, caption)
    grid = picture.add_gridspec(len(panels), 1, height_ratios=heights)
    for place, ((metric, unit), mine) in enumerate(panels.items()):
        axes = picture.add_subplot(grid[place])
        for line, one in enumerate(mine):
            if one.median is None:
                _reason(axes, line, one)
                continue
            axes.barh(line, one.median, BAR, color=OURS if one.contender.startswith("hpresil") else AMONG)
            _whisker(axes, line, one)
        _lines(axes, mine, "floor")
        _frame(axes, [one.contender for one in mine], _measured(metric, unit))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=8, frameon=False)
    return picture


# --------------------------------------------------------------------------------- parts of both


def _frame(axes: Axes, labels: Sequence[str], below: str) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(below, fontsize=8)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _measured(metric: str, unit: str) -> str:
    units = {"1": "", "ratio_up": ", more is better"}
    return metric + units.get(unit, f", {unit}")


def _whisker(axes: Axes, line: int, one: Row) -> None:
    """Draw from the least to the largest figure, and write all three in a column on the right."""
    assert one.median is not None
    text = value(one.median)
    if one.min is not None and one.max is not None and one.min < one.max:
        ends = [one.min, one.max]
        axes.plot(ends, [line, line], color=INK, linewidth=1.2, marker="|", markersize=5)
        text += f" ({value(one.min)} to {value(one.max)})"
    across = axes.get_yaxis_transform()
    axes.text(1.02, line, text, va="center", fontsize=8, color=INK, transform=across)


def _lines(axes: Axes, taken: Sequence[Row], floor: str) -> None:
    """Draw floors, or baselines where there is none, and goals.

    Each is a line through all bars if there is one value, else there is one on each bar.
    """
    for name, figures, style, colour in (
        (floor, [one.floor for one in taken], "solid", INK),
        ("baseline", [one.baseline if one.floor is None else None for one in taken], "dotted", MUTED),
        ("goal", [one.goal for one in taken], "dashed", "#D55E00"),
    ):
        look: dict[str, Any] = {"colors": colour, "linestyles": style, "linewidth": 1.3, "zorder": 4}
        different = {figure for figure in figures if figure is not None}
        if len(different) == 1:
            (x,) = different
            axes.vlines(x, -0.5, len(taken) - 0.5, label=f"{name}: {value(x)}", **look)
        elif different:
            places = [(x, line) for line, x in enumerate(figures) if x is not None]
            xs, lines = zip(*places, strict=True)
            axes.vlines(xs, [at - 0.45 for at in lines], [at + 0.45 for at in lines], label=name, **look)


def _reason(axes: Axes, line: int, one: Row | None) -> None:
    why = "there is no figure" if one is None else one.why_missing or "there is no figure"
    text = shorten(f"not here: {why}", WHY_CHARACTERS, placeholder=" …")
    across = axes.get_yaxis_transform()
    box = {"facecolor": "white", "linewidth": 0, "pad": 1}
    look: dict[str, Any] = {"fontsize": 8, "color": MUTED, "style": "italic", "bbox": box, "zorder": 6}
    axes.text(0.01, line, text, va="center", transform=across, **look)
