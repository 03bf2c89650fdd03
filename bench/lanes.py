"""What a timeline's picture is drawn from: lanes of processes with bars for what their threads did.

Read from a file of `bench.trace`. hpresil's own trace is taken where it is there, without what native code
does; else what the marks of the training processes say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.trace import BENCH_ROW, CUT, FAULT, FIRST_ROW, WHOLE

from hpresil.telemetry.report.recovery import KINDS
from hpresil.telemetry.timeline import JOB, PHASES

BEFORE_S, BEYOND = 0.1, 0.03
"""Where the picture begins, and for which share of the recovery it goes on after its end."""
KIND = KINDS | {
    "fold": "exchange", "collect": "exchange", "fetch": "state",
    "detect": "agent", "first step": "compute", "until it noticed": "wait", CUT: "fault",
}  # fmt: skip
"""Kinds of bars by their names: as in a report, and for those that no report draws."""
STEPS = "step"
TOUCHING_S = 5e-6
"""Two bars that overlap by less touch, and are rounded."""
NOT_DRAWN = ("reap",)
"""What nobody waits for: the kernel frees a dead process's memory."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """What one thread did, in seconds from the fault.

    Attributes:
        kind: What its colour says; "" for a step that holds other bars.
        depth: How many others it lies in.
        hit: The fault ended it.
    """

    name: str
    begin: float
    end: float
    kind: str
    depth: int = 0
    hit: bool = False


@dataclass
class Lane:
    """One process: bars by the name of the thread. ``hit``: the fault was its."""

    name: str
    hit: bool
    lines: dict[str, list[Bar]] = field(default_factory=dict)


def recovery(entries: Sequence[Entry]) -> tuple[float, float, list[int]]:
    """Return when the fault was, in microseconds of the timeline, how long the recovery took in seconds, and
    which processes were hit.

    Raises:
        ValueError: There was no fault, or no step of the full group after it.
    """
    found = {e["name"]: e for e in entries if e["ph"] == "i" and e["pid"] == BENCH_ROW}
    for name in (FAULT, WHOLE):
        if name not in found:
            raise ValueError(f"it has no {name}; what can be drawn is a run that recovered from a fault")
    fault = found[FAULT]["ts"]
    return fault, (found[WHOLE]["ts"] - fault) / 1e6, found[FAULT]["args"]["processes"]


def lanes(entries: Sequence[Entry]) -> list[Lane]:
    """Return the processes that did something in that time, in the order of the timeline."""
    fault, length, hit = recovery(entries)
    names = {e["pid"]: e["args"]["name"] for e in entries if e["name"] == "process_name"}
    found = []
    for row in sorted(names):
        if row == BENCH_ROW or (row >= FIRST_ROW and JOB in names):
            continue
        process = re.search(r"process (\d+)\)", names[row])
        lane = Lane(names[row].split(" (")[0], hit=process is not None and int(process[1]) in hit)
        ranks: dict[int, None] = {}
        for title, facts, bar in _bars(entries, row, fault):
            if lane.hit and ("cut" in facts or bar.name == CUT):
                bar = replace(bar, end=min(bar.end, 0.0), hit=True)  # it was noticed later
            if bar.end > -BEFORE_S and bar.begin < length * (1 + BEYOND):
                lane.lines.setdefault(title, []).append(bar)
                ranks |= {facts["rank"]: None} if facts.get("rank") is not None else {}
        if lane.lines:
            lane.name += _ranks(list(ranks)) if row < FIRST_ROW else ""
            titles = sorted(lane.lines, key=lambda title: title != STEPS)
            lane.lines = {title: _nested(lane.lines[title]) for title in titles}
            found.append(lane)
    return found


def _bars(entries: Sequence[Entry], row: int, fault: float) -> Iterator[tuple[str, Entry, Bar]]:
    """Yield (line, what is said of it, bar) of a process, without those of native code."""
    mine = [e for e in entries if e["pid"] == row]
    threads = {e["tid"]: e["args"]["name"] for e in mine if e["name"] == "thread_name"}
    ends = {e["id"]: e["ts"] for e in mine if e["ph"] == "e"}
    for e in mine:
        hidden = e["name"] in NOT_DRAWN or e["name"].startswith("native ")
        if e["ph"] not in ("X", "b") or hidden or (row == JOB and e["name"] not in PHASES):
            continue
        end = e["ts"] + e["dur"] if e["ph"] == "X" else ends[e["id"]]
        times = ((e["ts"] - fault) / 1e6, (end - fault) / 1e6)
        if e["name"] == STEPS:  # hpresil's own span of a step holds all others
            yield STEPS, e["args"], Bar(f"step {e['args'].get('step', '')}", *times, kind="")
        else:
            line = "" if row == JOB else threads.get(e["tid"], "")
            yield line, e["args"], Bar(e["name"], *times, kind=_kind(e["name"]))


def _kind(name: str) -> str:
    groups = {"copy": "state", "step": "compute"}
    return KIND.get(name) or groups.get(name.split()[0], "agent")


def _ranks(ranks: Sequence[int]) -> str:
    said = ["spare" if rank < 0 else f"rank {rank}" for rank in ranks]
    return f"\n{', then '.join(said)}" if said else ""


def _nested(bars: Sequence[Bar]) -> list[Bar]:
    """Return the bars of one thread in the order of their beginnings, with their depths."""
    ends: list[float] = []
    found = []
    for bar in sorted(bars, key=lambda bar: (bar.begin, -bar.end)):
        ends = [end for end in ends if end > bar.begin + TOUCHING_S]
        found.append(replace(bar, depth=len(ends)))
        ends.append(bar.end)
    return found
