"""A job as one file of the Chrome trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process row for the job (its steps, generations and recoveries, loss and group size as counters), one for
each agent and worker with a row for each of its threads. Events are instants in the row of their worker;
faults and losses are instants across all rows. Times are microseconds from the job's first event.

The form: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Google's
"Trace Event Format").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpresil.telemetry.events import Event
from hpresil.telemetry.recovery import Recovery
from hpresil.telemetry.story import Activity, Process, Story

JOB, FIRST_AGENT, FIRST_WORKER = 1, 2, 1000
STEPS, GENERATIONS, RECOVERIES = 1, 2, 3
THREADS = {"hpresil-control": "control", "hpresil-regroup": "regroup", "hpresil-serve": "serve"}
PHASES = ("detect", "regroup", "restore", "first step")
Entry = dict[str, Any]


def entries(story: Story) -> Iterator[Entry]:
    """Yield everything in the form of the file's ``traceEvents``."""
    yield from _job(story)
    agents = 0
    rows: dict[int, int] = {}
    for process in story.processes:
        if process.worker < 0:
            agents += 1
        row = FIRST_AGENT + agents - 1 if process.worker < 0 else FIRST_WORKER + process.worker
        rows[process.worker] = row
        yield from _process(story, process, row)
    for event in story.events:
        yield from _event(story, event, rows.get(event.get("worker", -2), JOB))


def write(story: Story, path: Path) -> int:
    """Write the file, whole or not at all; return how many entries it has."""
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    first = story.events[0]
    about = {"run": str(story.directory), "run_id": first.get("run_id", ""), "wall": first.get("wall")}
    try:
        with temporary.open("w") as file:
            file.write('{"displayTimeUnit": "ms", "otherData": ' + json.dumps(about) + ', "traceEvents": [\n')
            for entry in entries(story):
                file.write((",\n" if count else "") + json.dumps(entry, separators=(",", ":")))
                count += 1
            file.write("\n]}\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _named(row: int, name: str, order: int, threads: dict[int, str]) -> Iterator[Entry]:
    yield {"ph": "M", "pid": row, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": row, "name": "process_sort_index", "args": {"sort_index": order}}
    for thread, text in threads.items():
        yield {"ph": "M", "pid": row, "tid": thread, "name": "thread_name", "args": {"name": text}}
        yield {
            "ph": "M", "pid": row, "tid": thread, "name": "thread_sort_index", "args": {"sort_index": thread}
        }  # fmt: skip


# ---------------------------------------------------------------------------------------- the job


def _job(story: Story) -> Iterator[Entry]:
    yield from _named(JOB, "job", 0, {STEPS: "steps", GENERATIONS: "generations", RECOVERIES: "recoveries"})
    before = None
    for event in story.all("Decided", "StepCompleted"):
        if event["event"] == "StepCompleted" and before is not None:
            name = f"step {event['step']}"
            yield _block(story, JOB, STEPS, name, before, event["t"], {"generation": event.get("generation")})
        before = event["t"] if event["event"] == "StepCompleted" else before or event["t"]
    views = story.all("ViewInstalled")
    ends = [view["t"] for view in views[1:]] + [story.end]
    for view, end in zip(views, ends, strict=True):
        name = f"generation {view['generation']}: {len(view['members'])} members"
        yield _block(story, JOB, GENERATIONS, name, view["t"], end, {"members": view["members"]})
        yield _counter(story, "group size", view["t"], len(view["members"]))
    for event in story.all("StepCommitted"):
        yield _counter(story, "loss", event["t"], event.get("loss", 0.0))
    for recovery in story.recoveries:
        yield from _recovery(story, recovery)


def _recovery(story: Story, recovery: Recovery) -> Iterator[Entry]:
    parts = (recovery.detect_ms, recovery.regroup_ms, recovery.restore_ms, recovery.first_step_ms)
    end = (
        recovery.at + sum(part or 0.0 for part in parts) / 1e3 + 1e-6
    )  # the phases lie within, rounded as well
    who = ", ".join(f"worker {worker}" for worker in recovery.workers)
    name = f"{recovery.kind} {who}".strip()
    facts = {"generation": recovery.generation, "steps_redone": recovery.steps_redone, **recovery.phases()}
    yield _block(story, JOB, RECOVERIES, name, recovery.at, end, facts)
    at = recovery.at
    for phase, milliseconds in zip(PHASES, parts, strict=True):
        if milliseconds:
            yield _block(story, JOB, RECOVERIES, phase, at, at + milliseconds / 1e3, {})
            at += milliseconds / 1e3
    if recovery.workers:
        yield _instant(story, f"fault: {name}", recovery.at, JOB, "g", {})


# ---------------------------------------------------------------------------------------- processes


def _process(story: Story, process: Process, row: int) -> Iterator[Entry]:
    who = process.name if process.worker < 0 else f"worker {process.worker}"
    first = "agent" if process.worker < 0 else "training"
    threads = {
        track + 1: first if text == "MainThread" else THREADS.get(text, text)
        for track, text in enumerate(process.tracks)
        if text
    }
    yield from _named(row, f"{who} ({process.node}, process {process.pid})", row, threads)
    for number, activity in enumerate(process.activities):
        facts = _facts(story, process, activity)
        if activity.overlapping:
            yield from _overlapping(story, row, number, activity, facts)
        else:
            name, thread = activity.name, activity.track + 1
            yield _block(story, row, thread, name, activity.begin, activity.end, facts)


def _facts(story: Story, process: Process, activity: Activity) -> Entry:
    facts: Entry = {}
    if process.worker >= 0:
        facts["rank"], facts["generation"] = story.place(process.worker, activity.begin)
    if activity.generation:
        facts["generation"] = activity.generation
    facts |= {name: n for name, n in (("step", activity.step), ("slot", activity.slot)) if n >= 0}
    if activity.value or activity.name in ("notice", "start worker"):
        facts["worker" if activity.name in ("notice", "start worker") else "bytes"] = activity.value
    if activity.cut:
        facts["cut"] = "the process ended in it, or it was not over when the trace was read"
    return facts


def _overlapping(story: Story, row: int, number: int, activity: Activity, facts: Entry) -> Iterator[Entry]:
    whole = {"pid": row, "tid": activity.track + 1, "cat": "hpresil", "name": activity.name}
    whole["id"] = f"{row}.{number}"
    yield {"ph": "b", "ts": _microseconds(story, activity.begin), "args": facts, **whole}
    yield {"ph": "e", "ts": _microseconds(story, activity.end), **whole}


def _event(story: Story, event: Event, row: int) -> Iterator[Entry]:
    name = event["event"]
    facts = {key: value for key, value in event.items() if key not in ("t", "wall", "event")}
    scope = "p"
    if name == "WorkerLost":
        name, scope = f"WorkerLost {event['worker']}: {event.get('why') or event.get('reason')}", "g"
    yield _instant(story, name, event["t"], row, scope, facts)


def _block(story: Story, row: int, thread: int, name: str, begin: float, end: float, facts: Entry) -> Entry:
    start = _microseconds(story, begin)
    length = round(max(0.0, end - begin) * 1e6, 3)
    return {"ph": "X", "pid": row, "tid": thread, "name": name, "ts": start, "dur": length, "args": facts}


def _instant(story: Story, name: str, at: float, row: int, scope: str, facts: Entry) -> Entry:
    ts = _microseconds(story, at)
    return {"ph": "i", "pid": row, "tid": 1, "name": name, "ts": ts, "s": scope, "args": facts}


def _counter(story: Story, name: str, at: float, value: float) -> Entry:
    return {"ph": "C", "pid": JOB, "name": name, "ts": _microseconds(story, at), "args": {name: value}}


def _microseconds(story: Story, t: float) -> float:
    return round((t - story.begin) * 1e6, 3)
