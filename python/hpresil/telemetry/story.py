"""A run directory read as a whole: what happened, who was where, and what every process did.

Everything on the monotonic clock of the machine whose agent wrote the events. The spans of another machine's
processes are moved by what the events say of its clock (`clocks`). Wall clocks are not looked at: they may be
hours apart, and be set while the job runs.

Not guaranteed: completeness. A running job can be read too; what its agent has not written yet is missing.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hpresil.base.errors import DataError
from hpresil.base.span_ring import OVERLAPPING, Span
from hpresil.telemetry import events as event_log, trace
from hpresil.telemetry.clocks import Clock, Clocks
from hpresil.telemetry.events import Event
from hpresil.telemetry.goodput import goodput
from hpresil.telemetry.recovery import Recovery, recoveries
from hpresil.telemetry.trace import Trace

INJECTED = "injected.json"


class Activity(NamedTuple):
    """One span on the job's clock, in seconds; ``cut``: the process ended in it."""

    name: str
    begin: float
    end: float
    track: int
    overlapping: bool
    cut: bool
    step: int
    slot: int
    generation: int
    value: int


@dataclass(frozen=True)
class Process:
    """What one process did. ``worker`` is -1 for an agent."""

    name: str
    worker: int
    pid: int
    node: str
    tracks: tuple[str, ...]
    activities: tuple[Activity, ...]
    lost: int


@dataclass(frozen=True)
class Story:
    """One job.

    Attributes:
        directory: Its run directory.
        events: All events, in order.
        traces: The spans of its processes.
        fault_times: When faults were injected, in monotonic seconds, by worker, where that was written down.
    """

    directory: Path
    events: list[Event]
    traces: list[Trace] = field(default_factory=list)
    fault_times: dict[int, float] = field(default_factory=dict)

    @property
    def begin(self) -> float:
        """The time of the first event."""
        return float(self.events[0]["t"])

    @property
    def end(self) -> float:
        """The time of the last event."""
        return max(float(event["t"]) for event in self.events)

    def all(self, *names: str) -> list[Event]:
        """Return the events with one of these names."""
        return [event for event in self.events if event["event"] in names]

    @cached_property
    def recoveries(self) -> list[Recovery]:
        """Every change of the group after the first."""
        return recoveries(self.events, self.fault_times)

    @cached_property
    def processes(self) -> list[Process]:
        """What each process did, agents first."""
        return [self._process(found) for found in self.traces]

    def goodput(self) -> dict[str, float]:
        """Return the seconds of each category."""
        return goodput(self.events, fault_times=self.fault_times, data_waits=self.data_waits())

    def data_waits(self) -> dict[int, float]:
        """Return for each step how long its slowest member waited for data."""
        waits: dict[tuple[int, int], float] = {}
        for process in self.processes:
            for activity in process.activities:
                if activity.name == "data" and process.worker >= 0:
                    key = activity.step, process.worker
                    waits[key] = waits.get(key, 0.0) + activity.end - activity.begin
        longest: dict[int, float] = {}
        for (step, _), seconds in waits.items():
            longest[step] = max(longest.get(step, 0.0), seconds)
        return longest

    def place(self, worker: int, t: float) -> tuple[int, int]:
        """Return (rank, generation) of a worker at ``t``; rank -1: it was no member."""
        views, times = self._views
        after = bisect_right(times, t)
        if not after:
            return -1, 0
        view = views[after - 1]
        return view["members"].index(worker) if worker in view["members"] else -1, view["generation"]

    @cached_property
    def _views(self) -> tuple[list[Event], list[float]]:
        views = self.all("ViewInstalled")
        return views, [view["t"] for view in views]

    @cached_property
    def _ends(self) -> dict[int, float]:
        return {event["worker"]: event["t"] for event in self.all("WorkerLost", "WorkerLeft")}

    def _process(self, found: Trace) -> Process:
        clock = self._clocks.of(found.head.node, found.worker, found.head.pid)
        end = max(self._ends.get(found.worker, self.end), self.begin)
        activities = [_activity(span, clock) for span in found.spans]
        activities += [_activity(span, clock, end) for span in found.open]
        activities.sort(key=lambda one: (one.begin, -one.end))
        head = found.head
        return Process(
            found.name, found.worker, head.pid, head.node, head.tracks, tuple(activities), found.lost
        )

    @cached_property
    def _clocks(self) -> Clocks:
        return Clocks(self.events)


def _activity(span: Span, clock: Clock, cut_at: float | None = None) -> Activity:
    begin = clock.ours(span.begin_ns / 1e9)
    end = clock.ours(span.end_ns / 1e9) if cut_at is None else max(begin, cut_at)
    overlapping = bool(span.flags & OVERLAPPING)
    place = (span.step, span.slot, span.generation, span.value)
    return Activity(span.name, begin, end, span.track, overlapping, cut_at is not None, *place)


def read(run_dir: Path) -> Story:
    """Read the job of ``run_dir``.

    Raises:
        DataError: There is no job, or it has not written an event yet.
    """
    path = run_dir / "events.jsonl"
    try:
        found = [event for event in event_log.read(path) if _is_event(event)]
    except FileNotFoundError:
        raise DataError(f"{run_dir} holds no job: there is no {path.name}; name a run directory") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"{path} holds no event yet")
    clocks = Clocks(found)
    afar = [t for t in trace.read_nodes(run_dir) if clocks.knows(t.head.node, t.worker, t.head.pid)]
    traces = sorted([*trace.read_all(run_dir), *afar], key=lambda t: (t.worker, t.name))
    return Story(run_dir, found, traces, dict(_injected(run_dir / INJECTED)))


def why_lost(event: Event) -> str:
    """Return why a worker was lost, and where its stacks are if they were asked for."""
    said, stacks = event.get("why") or "", event.get("stacks")
    return f"{said}; stacks in {stacks}" if stacks else str(said)


def _is_event(event: object) -> bool:
    return (
        isinstance(event, dict) and isinstance(event.get("event"), str) and isinstance(event.get("t"), float)
    )


def _injected(path: Path) -> Iterator[tuple[int, float]]:
    if not path.exists():
        return
    try:
        for fault in json.loads(path.read_text())["faults"]:
            yield int(fault["worker"]), float(fault["t"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no list of injected faults: {error!r}") from error


def write_injected(run_dir: Path, faults: dict[str, tuple[int, float]]) -> None:
    """Write down which worker was harmed how and when, so that a recovery is timed from the fault.

    Args:
        run_dir: The job's run directory.
        faults: (worker, monotonic seconds) by the kind of fault.
    """
    listed = [{"kind": kind, "worker": worker, "t": t} for kind, (worker, t) in faults.items()]
    (run_dir / INJECTED).write_text(json.dumps({"faults": listed}, indent=1) + "\n")
