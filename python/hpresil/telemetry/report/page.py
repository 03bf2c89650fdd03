"""The report as one HTML file: it needs no network, no script, and prints well."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from statistics import median

from hpresil.telemetry.report import curves, presence, recovery, shares
from hpresil.telemetry.report.changes import REASONS, counted
from hpresil.telemetry.report.drawing import ROLES, Figure, seconds
from hpresil.telemetry.report.shares import MEANING, NAMES
from hpresil.telemetry.report.svg import svg, variables
from hpresil.telemetry.story import Story

MOST_RECOVERIES = 40
STYLE = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
body { margin: 0 auto; max-width: 1040px; padding: 32px 24px 64px; background: var(--surface);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 17px; margin: 40px 0 4px; }
p, .legend { color: var(--muted); margin: 2px 0 8px; } p.about { overflow-wrap: anywhere; }
figure { margin: 0; overflow-x: auto; } svg { width: 100%; min-width: 640px; height: auto; display: block; }
svg text { font-family: inherit; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 24px 0 8px; }
.tile { border: 1px solid var(--grid); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 24px; line-height: 1.3; }
.tile span { color: var(--muted); font-size: 13px; }
.legend span { display: inline-block; margin-right: 18px; white-space: nowrap; }
.legend i { display: inline-block; width: 12px; height: 10px; margin-right: 6px; border-radius: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; }
.wide { overflow-x: auto; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 500; }
th:first-child, td:first-child, table.told :last-child { text-align: left; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def figures(story: Story) -> list[Figure]:
    """Return all figures of a job, in the order in which they are read."""
    found = [
        shares.shares(story.goodput()),
        curves.loss(story),
        curves.speed(story),
        presence.presence(story),
    ]
    changes = story.recoveries[:MOST_RECOVERIES]
    found += [recovery.recovery(story, change, number) for number, change in enumerate(changes, 1)]
    return [figure for figure in found if figure is not None]


def html(story: Story, shown: list[Figure]) -> str:
    """Return the page."""
    style = STYLE.replace("LIGHT", variables(False)).replace("DARK", variables(True))
    body = [_heading(story)]
    for figure in shown:
        body.append(_section(figure))
        if figure.name == "goodput":
            body.append(_goodput_table(story))
        if figure.name == "workers":
            body.append(_recovery_table(story))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(_name(story))}: hpresil report</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def write(text: str, path: Path) -> None:
    """Write the page, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name(story: Story) -> str:
    return story.directory.absolute().name


def _heading(story: Story) -> str:
    first, totals = story.events[0], story.goodput()
    steps = len(story.all("StepCommitted"))
    faults = [change for change in story.recoveries if change.workers]
    times = [change.total_ms for change in faults if change.total_ms is not None]
    redone = sum(change.steps_redone for change in story.recoveries)
    tiles = [
        (seconds(story.end - story.begin), "from the start to the last event"),
        (f"{steps:,}", "steps committed"),
        (f"{totals['productive'] / max(1e-9, sum(totals.values())):.1%}", "of the time was productive"),
        (f"{len(faults)}", f"fault{'s' * (len(faults) != 1)}{' survived' * bool(times)}"),
        (seconds(median(times) / 1e3) if times else "none", "from a fault to the next step (median)"),
        (f"{redone:,}", "steps made again"),
    ]
    ended = story.all("JobEnded")
    how = (
        f"ended with status {ended[-1]['status']}: {ended[-1]['reason']}"
        if ended
        else "still running, or cut off"
    )
    finding = f"{counted(steps, 'step')}, {counted(len(faults), 'fault') if faults else 'no fault'}, "
    finding += f"{counted(redone, 'step')} made again" if redone else "no step made again"
    command = " ".join(map(str, first.get("command", [])))
    lines = [f"<h1>{escape(finding)}</h1>", f'<p class="about">{escape(_name(story))}: {escape(how)}</p>']
    if command:
        lines.append(f'<p class="about"><code>{escape(command[:400])}</code></p>')
    shown = "".join(f'<div class="tile"><b>{escape(b)}</b><span>{escape(s)}</span></div>' for b, s in tiles)
    return "\n".join([*lines, f'<div class="tiles">{shown}</div>'])


def _section(figure: Figure) -> str:
    legend = "".join(
        f'<span><i style="background:var(--{role})"></i>{escape(text)}</span>' for role, text in figure.legend
    )
    return (
        f'<section id="{figure.name}"><h2>{escape(figure.title)}</h2>\n<p>{escape(figure.note)}</p>\n'
        f'<div class="legend">{legend}</div>\n<figure>\n{svg(figure)}\n</figure></section>'
    )


def _table(head: list[str], rows: list[list[str]], kind: str = "figures") -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = [line(head, "th"), *(line(row, "td") for row in rows)]
    return f'<div class="wide"><table class="{kind}">' + "".join(lines) + "</table></div>"


def _goodput_table(story: Story) -> str:
    totals = story.goodput()
    elapsed = sum(totals.values())
    rows = [
        [NAMES.get(name, name), f"{totals[name]:,.3f}", f"{totals[name] / max(elapsed, 1e-9):.2%}", meaning]
        for name, (_, meaning) in MEANING.items()
    ]
    rows.append(["elapsed", f"{elapsed:,.3f}", "100.00%" if elapsed else "", "the sum"])
    return _table(["cause", "seconds", "share", "what it is"], rows, "told")


def _recovery_table(story: Story) -> str:
    """Return the figures of each recovery, as the demo prints them."""
    head = ["change", "at (s)", "detect", "regroup", "restore", "first step", "total", "steps redone"]
    rows = []
    for change in story.recoveries:
        who = " and ".join(f"worker {worker}" for worker in change.workers)
        what = f"{who} {REASONS.get(change.kind, change.kind)}".strip()
        times = (
            change.detect_ms,
            change.regroup_ms,
            change.restore_ms,
            change.first_step_ms,
            change.total_ms,
        )
        shown = ["" if time is None else f"{time:,.1f}" for time in times]
        rows.append([what, f"{change.at - story.begin:,.2f}", *shown, str(change.steps_redone)])
    if not rows:
        return "<h2>The group never changed</h2>"
    known = (
        ""
        if story.fault_times
        else " The time of a fault is the last sign of life of its worker: detect is an upper bound."
    )
    return f"<h2>What each change cost</h2>\n<p>Milliseconds.{known}</p>\n" + _table(head, rows)


assert {role for role, _ in MEANING.values()} <= set(ROLES)
