"""A run directory without a job: two workers and a spare, worker 1 killed at 5.0 s, a third one grown in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpresil.base import span_ring as ring

KILLED_AT = 5.0
GENERATIONS = {1: [0, 1], 2: [0, 2], 3: [0, 2, 3]}


def events() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []

    def add(t: float, event: str, **fields: Any) -> None:
        told.append({"t": t, "wall": 1e9 + t, "event": event, **fields})

    def steps(numbers: range, start: float, generation: int, size: int) -> None:
        for i, step in enumerate(numbers):
            t = start + 0.2 * i
            loss = 5.0 - 0.1 * step
            add(t, "StepCommitted", step=step, generation=generation, world_size=size, loss=loss, worker=0)
            add(t + 0.001, "StepCompleted", step=step, generation=generation)

    add(1.0, "JobStarted", run_id="r1", workers=2, spares=1, min_workers=1, command=["train.py", "<x>&"])
    for worker in (0, 1, 2):
        add(2.0, "WorkerStarted", worker=worker, index=worker, pid=100 + worker, spare=worker == 2)
        add(2.4, "WorkerReady", worker=worker, pristine=True)
    add(2.5, "ViewInstalled", generation=1, members=GENERATIONS[1])
    add(2.6, "Decided", generation=1, target=0, sources={}, slots=[], initial=True)
    add(2.8, "WorkerReady", worker=2, pristine=False)
    steps(range(0, 10), 3.0, 1, 2)
    add(5.01, "WorkerLost", worker=1, rank=1, reason="killed", last_stamp=4.95, why="killed by SIGKILL")
    add(5.02, "ViewInstalled", generation=2, members=GENERATIONS[2])
    add(5.04, "Decided", generation=2, target=10, sources={"2": 0}, slots=[], initial=False)
    add(5.05, "GroupBuilt", generation=2, worker=2)
    add(5.06, "FrameSealed", version=10, frame=0, frame_bytes=4096, worker=0)
    add(5.08, "Restored", generation=2, worker=2, version=10, bytes=4000)
    add(5.1, "WorkerStarted", worker=3, index=1, pid=103, spare=True)
    steps(range(10, 15), 5.3, 2, 2)
    add(6.15, "WorkerReady", worker=3, pristine=False)
    add(6.2, "ViewInstalled", generation=3, members=GENERATIONS[3])
    add(6.22, "Decided", generation=3, target=15, sources={"3": 0}, slots=[], initial=False)
    steps(range(15, 18), 6.4, 3, 3)
    add(7.0, "JobEnded", status=0, reason="finished at version 18", worker=-1, step=-1, slot=-1, saved="")
    for worker in (0, 2, 3):
        add(7.1, "WorkerLeft", worker=worker, status=0)
    return told


def span(
    name: str, begin: float, end: float, *, track: int = 0, step: int = -1, slot: int = -1, **more: int
) -> tuple[Any, ...]:
    """Return a record without its number."""
    begin_ns, end_ns = round(begin * 1e9), round(end * 1e9)
    place = (more.get("value", 0), step, more.get("generation", 0), slot, track, more.get("flags", 0))
    return (begin_ns, end_ns, *place, 0, name.encode())


def trace(
    path: Path, worker: int, ended: list[tuple[Any, ...]], opened: tuple[tuple[Any, ...], ...] = ()
) -> None:
    """Write a file of spans."""
    path.parent.mkdir(exist_ok=True)
    offset = round((1e9) * 1e9)
    made = ring.header(
        capacity=max(1, len(ended)), pid=100 + worker, worker=worker, wall_offset_ns=offset, node="n1"
    )
    ring.COUNT.pack_into(made, ring.WRITTEN_AT, len(ended))
    for track, name in enumerate((b"MainThread", b"hpresil-regroup", b"hpresil-serve")):
        start = ring.TRACKS_AT + track * ring.TRACK_BYTES
        made[start : start + len(name)] = name
    for place, record in enumerate(opened):
        ring.RECORD.pack_into(made, ring.OPEN_AT + place * ring.RECORD_BYTES, 0, *record)
    body = b"".join(ring.RECORD.pack(number, *record) for number, record in enumerate(ended))
    path.write_bytes(bytes(made) + body)


def write(directory: Path) -> Path:
    """Write the run directory and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events()))
    slots = [span("slot", 4.8 + 0.1 * i, 4.88 + 0.1 * i, step=10, slot=i, generation=1) for i in range(4)]
    waits = [span("data", 4.81, 4.85, step=9, slot=0), span("data", 4.86, 4.88, step=9, slot=1)]
    groups = [span("regroup", 5.03, 5.05, track=1, generation=2)]
    seals = [span("seal", 5.055, 5.06, track=2, value=4096), span("serve", 5.05, 5.06, track=2)]
    trace(directory / "trace" / "worker-0.spans", 0, [*slots, *waits, *groups, *seals])
    dying = (span("step", 4.8, 0.0, step=10), span("slot", 4.9, 0.0, step=10, slot=5))
    trace(directory / "trace" / "worker-1.spans", 1, slots[:1], dying)
    trace(directory / "trace" / "worker-2.spans", 2, [span("restore", 5.06, 5.08, value=4000)])
    joining = [
        span("build", 5.2, 5.9),
        span("regroup", 6.21, 6.23, track=1),
        span("slot", 6.25, 6.38, step=15),
    ]
    trace(directory / "trace" / "worker-3.spans", 3, joining)
    notice = span("notice", 5.009, 5.012, value=1)
    started = span("start worker", 5.08, 5.1, value=3, flags=ring.OVERLAPPING)
    trace(directory / "trace" / "agent-n1.spans", -1, [notice, started])
    return directory
