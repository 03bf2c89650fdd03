"""Where a job's time went, by cause: disjoint shares that add up to the time elapsed (pure).

    start-up     from the start to the first decision: processes, imports, forming the group
    productive   steps of the full group
    degraded     the share that missing workers would have had of a smaller group's steps
    data         waiting for data inside of steps: that of the slowest member
    detection    from a fault to its being noticed
    recovery     from there to the group being re-formed and the state restored; growing and handing over too
    recomputed   steps made again after a fall-back; what an interrupted step took beyond a typical one
    other        after the last step: saving, leaving

A step's time is that between two completed steps, so what a script does between steps belongs to it.
A step of w of N workers is w/N productive and the rest degraded; N changes when the group is resized. What
an interrupted step took without detection and recovery, beyond the median of the last 64 undisturbed steps
(scaled to the size of the group), was computed again: slots that died with their worker. Without such steps
nothing counts as that.

The `Ledger` takes events one by one and keeps only those of the step in progress, so an agent can have one
for the job's life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from hpresil.telemetry.recovery import last_sign

CATEGORIES = (
    "productive", "data", "degraded", "detection", "recovery", "recomputed", "start-up", "other",
)  # fmt: skip
TYPICAL_OF = 64
REMEMBERED_STEPS = 1024
CHANGES = frozenset({"WorkerLost", "ViewInstalled", "Decided", "GroupBuilt", "Restored"})

Event = Mapping[str, Any]


class Ledger:
    """Sums up where the time went, event by event, in order.

    Args:
        fault_times: When the fault of a worker was injected, in monotonic seconds, by worker id; else the
            last sign of life of a lost worker counts, an upper bound.
    """

    def __init__(self, fault_times: Mapping[int, float] | None = None) -> None:
        self._known = fault_times or {}
        self._sums = dict.fromkeys(CATEGORIES, 0.0)
        self._begun: float | None = None
        self._settled = 0.0
        self._last = 0.0
        self._decided = False
        self._ended = False
        self._full = 0
        self._told = False  # how large the full group is; else the largest one was it
        self._members: list[int] = []
        self._newest = -1
        self._open: list[Event] = []
        self._durations: deque[float] = deque(maxlen=TYPICAL_OF)
        self._waits: dict[int, tuple[float, float]] = {}  # step: seconds counted as data, and at most

    def add(self, event: Event) -> None:
        """Take in the next event."""
        name, t = event["event"], event["t"]
        if self._begun is None:
            self._begun = self._settled = self._last = t
        t = self._last = max(self._last, t)
        if name == "JobStarted":
            self._full = max(self._full, event.get("workers", 0))
            self._told = self._full > 0
        elif name == "ResizeRequested":
            self._full = min(self._full, event["workers"])
        elif name == "Resized":
            self._full = event["workers"]
        elif name == "StepCompleted" and not self._ended:
            self._complete(event["step"], t)
        elif name == "JobEnded":
            _put(self._sums, self._open_shares(t))
            self._ended, self._settled, self._open = True, t, []
        elif name in CHANGES and not self._ended:
            self._change(event, t)

    def data_waited(self, step: int, seconds: float) -> None:
        """One member waited so long for the data of ``step``, in all; the longest of a step counts."""
        counted, most = self._waits.get(step, (0.0, 0.0))
        more = min(seconds, most) - counted
        if more > 0:
            self._waits[step] = (counted + more, most)
            self._sums["productive"] -= more
            self._sums["data"] += more

    def totals(self, now: float | None = None) -> dict[str, float]:
        """Return the seconds by category until ``now``, or the last event."""
        end = max(self._last, now or 0.0)
        sums = dict(self._sums)
        if self._begun is not None:
            if self._ended:
                sums["other"] += end - self._settled
            else:
                _put(sums, self._open_shares(end))
        return sums

    @property
    def elapsed(self) -> float:
        """Seconds from the first event to the last."""
        return 0.0 if self._begun is None else self._last - self._begun

    def _change(self, event: Event, t: float) -> None:
        if event["event"] == "WorkerLost":
            if event["worker"] in self._members:
                self._open.append(event)
            return
        if event["event"] == "ViewInstalled":
            first = not self._members
            self._members = list(event["members"])
            if not self._told:
                self._full = max(self._full, len(self._members))
            if first:
                return
        if not self._decided:  # the group forms
            if event["event"] == "Decided":
                self._decided = True
                self._sums["start-up"] += t - self._settled
                self._settled, self._open = t, []
            return
        self._open.append(event)

    def _complete(self, step: int, t: float) -> None:
        shares, work = self._painted(t)
        disturbed = any(e["event"] in ("WorkerLost", "ViewInstalled") for e in self._open)
        if step <= self._newest:
            shares["recomputed"] += work
        else:
            # Members that are about to leave still take part: a group can be larger than full for a while.
            share = min(1.0, len(self._members) / self._full) if self._members else 1.0
            size = len(self._members) or 1
            if disturbed and self._durations:
                again = max(0.0, work - median(self._durations) / size)
                shares["recomputed"] += again
                work -= again
            elif not disturbed:
                self._durations.append(work * size)
            shares["productive"] += work * share
            shares["degraded"] += work - work * share
            self._waits[step] = (0.0, work * share)
            self._waits.pop(step - REMEMBERED_STEPS, None)
        _put(self._sums, shares)
        self._newest = max(self._newest, step)
        self._settled, self._open, self._decided = t, [], True

    def _open_shares(self, t: float) -> dict[str, float]:
        """Return the shares of the time since the last step that is not followed by another one yet."""
        shares, rest = self._painted(t)
        shares["other" if self._decided else "start-up"] += rest
        return shares

    def _painted(self, t: float) -> tuple[dict[str, float], float]:
        """Divide the time since the last step: shares of detection and recovery, and what is left."""
        spans = self._disturbances(t)
        cuts = sorted({self._settled, t, *(edge for _, a, b in spans for edge in (a, b))})
        shares, left = dict.fromkeys(CATEGORIES, 0.0), 0.0
        for a, b in pairwise(cuts):
            names = {name for name, first, last in spans if first <= a and b <= last}
            if names:
                shares["detection" if "detection" in names else "recovery"] += b - a
            else:
                left += b - a
        return shares, left

    def _disturbances(self, t: float) -> list[tuple[str, float, float]]:
        """Return (name, from, to) of what happened since the last step, within its time."""
        found: list[tuple[str, float, float]] = []
        since: float | None = None  # a change began and is not over
        until = 0.0
        for event in self._open:
            at = self._within(event["t"], t)
            if event["event"] == "WorkerLost":
                found.append(("detection", self._within(last_sign(event, self._known), at), at))
            if event["event"] in ("WorkerLost", "ViewInstalled"):
                since = at if since is None else since
            elif since is not None:
                until = at  # the last of Decided, GroupBuilt and Restored ends the change
        if since is not None:
            over = until if until >= since and not self._waits_for_view() else t
            found.append(("recovery", since, over))
        return found

    def _waits_for_view(self) -> bool:
        """Whether the newest loss was not answered by a decision yet."""
        names = [event["event"] for event in self._open]
        lost = max((i for i, name in enumerate(names) if name in ("WorkerLost", "ViewInstalled")), default=-1)
        return "Decided" not in names[lost:]

    def _within(self, t: float, end: float) -> float:
        return min(max(t, self._settled), end)


def _put(sums: dict[str, float], shares: Mapping[str, float]) -> None:
    for name, seconds in shares.items():
        sums[name] += seconds


def goodput(
    events: Iterable[Event],
    *,
    fault_times: Mapping[int, float] | None = None,
    data_waits: Mapping[int, float] | None = None,
) -> dict[str, float]:
    """Return the seconds of each category; they add up to the time from the first event to the last.

    Args:
        events: The job's events in order.
        fault_times: When the fault of a worker was injected, in monotonic seconds, by worker id.
        data_waits: Seconds that the slowest member waited for the data of each step.
    """
    ledger = Ledger(fault_times)
    for event in events:
        ledger.add(event)
    for step, seconds in (data_waits or {}).items():
        ledger.data_waited(step, seconds)
    return ledger.totals()
