"""`--trace DIR`: a timeline of each run, for Perfetto (ui.perfetto.dev) or `python -m bench timeline`.

A file in the Chrome trace format (`hpresil.telemetry.timeline` says where that is defined). What the marks of
the training processes say is the same for every contender:

* a row for each process: slices for its steps and for what lies between its other marks, which are instants,
* a row ``bench`` with the fault and the first step of the full group after it, as instants across all rows.

A run of hpresil has what `hpresil trace` writes as well. All of it is on one clock: marks, events and spans
are of CLOCK_MONOTONIC, which the processes of a machine share, and so are the calls of `rows.take_turns`.
Runs that fail leave no timeline; those that warm up do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contenders import Job, Mark
from bench.file_name import file_name
from bench.recovery import phases

BENCH_ROW, FIRST_ROW = 5000, 5001
"""Rows of the bench and of the processes by their marks; those of `hpresil.telemetry.timeline` are others."""
FAULT, WHOLE, CUT = "fault", "first full-group step", "cut off"
BETWEEN = {"noticed": "until it noticed", "group": "regroup", "restored": "restore", FAULT: CUT}
"""What a process did before a mark that is no step."""
Entry = dict[str, Any]


@dataclass
class Timelines:
    """Where timelines go: ``DIRECTORY/LABEL-NUMBER-NAME.json``."""

    directory: Path
    label: str = ""
    written: int = 0

    def write(self, name: str, entries: Iterable[Entry], about: Mapping[str, Any]) -> Path:
        """Write one timeline and return its path."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.written += 1
        path = self.directory / (file_name(self.label, f"{self.written:03}", name) + ".json")
        lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
        head = json.dumps(dict(about))
        path.write_text(f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":[\n{lines}\n]}}\n')
        return path


destination: Timelines | None = None
"""Set by `bench/__main__.py` if there is --trace; nothing is written without it."""


@dataclass(frozen=True)
class Fault:
    """When a fault happened, and to which processes."""

    t: float
    pids: tuple[int, ...]


# ------------------------------------------------------------------------------------ a run


def of_run(name: str, job: Job, directory: Path, marks: Sequence[Mark]) -> None:
    """Write the timeline of a run whose files are in ``directory``, if timelines are wanted."""
    if destination is None or not marks:
        return
    fault = fault_in(directory)
    found = story_of(directory / "run", fault)
    origin = marks[0]["t"] if found is None else min(marks[0]["t"], found.begin)
    entries = list(run_entries(name, job, marks, fault, origin))
    if found is not None:
        from hpresil.telemetry import timeline

        later = 1e6 * (found.begin - origin)
        entries += [
            entry | {"ts": round(entry["ts"] + later, 3)} if "ts" in entry else entry
            for entry in timeline.entries(found)
        ]
    about = {"contender": name, "job": described(job), "monotonic_s": origin}
    destination.write(name if job.fault else f"{name} without a fault", entries, about)


def described(job: Job) -> str:
    """Return in words what is trained and what it meets."""
    fault = job.fault
    met = f", {fault.kind} of rank {fault.rank} in step {fault.step}" if fault else ""
    return f"{job.size}, {job.workers} workers, {job.steps} steps{met}"


def fault_in(directory: Path) -> Fault | None:
    """Return the fault of a run, None if it had none."""
    try:
        found = json.loads((directory / "fault").read_text())
    except FileNotFoundError:
        return None
    return Fault(float(found["t"]), tuple(found["pids"]))


def story_of(run_dir: Path, fault: Fault | None) -> Any:
    """Return what hpresil wrote about a run (`hpresil.telemetry.story`), None if it was another's."""
    if not (run_dir / "events.jsonl").exists():
        return None
    from hpresil.telemetry import story

    found = story.read(run_dir)
    pids = fault.pids if fault else ()
    harmed = {event["worker"] for event in found.all("WorkerStarted") if event["pid"] in pids}
    return replace(found, fault_times={worker: fault.t for worker in harmed if fault})


def run_entries(
    name: str, job: Job, marks: Sequence[Mark], fault: Fault | None, origin: float
) -> Iterator[Entry]:
    """Yield everything that the marks say, in their order; ``origin`` is the second that times begin at."""
    yield from _named(BENCH_ROW, f"bench: {name}", -1)
    if fault is not None and job.fault is not None:
        yield _instant(BENCH_ROW, FAULT, fault.t - origin, "g", {"processes": list(fault.pids)})
        after = [mark for mark in marks if mark["what"] == "step" and mark["t"] >= fault.t]
        with suppress(ValueError):  # the group was never whole again
            whole = phases.first_full_step(after, job.fault.step, job.left)
            yield _instant(BENCH_ROW, WHOLE, whole - origin, "g", {})
    for number, pid in enumerate(dict.fromkeys(mark["pid"] for mark in marks)):
        mine = [mark for mark in marks if mark["pid"] == pid]
        if fault is not None and pid in fault.pids:
            mine = sorted([*mine, {"what": FAULT, "t": fault.t, "pid": pid}], key=lambda mark: mark["t"])
        ranks = dict.fromkeys(mark["rank"] for mark in mine if mark.get("rank") is not None)
        who = ", then ".join(f"rank {rank}" for rank in ranks) or "no rank"
        yield from _named(FIRST_ROW + number, f"{who} (marks of process {pid})", FIRST_ROW + number)
        yield from _process(FIRST_ROW + number, mine, origin)


def _process(row: int, marks: Sequence[Mark], origin: float) -> Iterator[Entry]:
    """Yield a process's slices, each from the mark before, and what its first mark and others say."""
    before = None
    for mark in marks:
        what, at = str(mark["what"]), mark["t"] - origin
        name = f"step {mark['step']}" if what == "step" else BETWEEN.get(what, what)
        facts: Entry = {key: mark[key] for key in ("step", "rank", "world", "parts") if key in mark}
        if before is not None:
            yield _slice(row, 1, name, before, at, facts)
        if before is None or what != "step":
            yield _instant(row, f"{name} done" if what == "step" else what, at, "t", facts)
        before = at


# ------------------------------------------------------------------------------------ turns


def of_turns(calls: Mapping[str, Sequence[tuple[float, float]]], warm_up: int) -> None:
    """Write one timeline of contenders that took turns: (begin, end) of their calls, in monotonic seconds."""
    if destination is None or not any(calls.values()):
        return
    origin = min(begin for those in calls.values() for begin, _ in those)
    destination.write("turns", turn_entries(calls, origin, warm_up), {"monotonic_s": origin})


def turn_entries(
    calls: Mapping[str, Sequence[tuple[float, float]]], origin: float, warm_up: int
) -> Iterator[Entry]:
    """Yield a row for each contender with a slice for each of its calls."""
    yield from _named(BENCH_ROW, "turns", 0)
    for row, (name, those) in enumerate(calls.items(), 1):
        yield {"ph": "M", "pid": BENCH_ROW, "tid": row, "name": "thread_name", "args": {"name": name}}
        for repeat, (begin, end) in enumerate(those):
            facts = {"repeat": repeat - warm_up, "counts": repeat >= warm_up}
            yield _slice(BENCH_ROW, row, name, begin - origin, end - origin, facts)


# ------------------------------------------------------------------------------------ entries


def _named(row: int, name: str, order: int) -> Iterator[Entry]:
    yield {"ph": "M", "pid": row, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": row, "name": "process_sort_index", "args": {"sort_index": order}}


def _slice(row: int, thread: int, name: str, begin: float, end: float, facts: Entry) -> Entry:
    """Return one slice; times in seconds."""
    start, length = round(1e6 * begin, 3), round(1e6 * (end - begin), 3)
    return {"ph": "X", "pid": row, "tid": thread, "name": name, "ts": start, "dur": length, "args": facts}


def _instant(row: int, name: str, at: float, scope: str, facts: Entry) -> Entry:
    ts = round(1e6 * at, 3)
    return {"ph": "i", "pid": row, "tid": 1, "name": name, "ts": ts, "s": scope, "args": facts}
