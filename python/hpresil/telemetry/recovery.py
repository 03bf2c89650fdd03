"""How long each recovery took, phase by phase, from a job's events alone (pure).

A recovery is the change from one generation to the next. Its phases follow one another without a gap:

    fault ── detect ──▶ WorkerLost ── regroup ──▶ last Decided or GroupBuilt
          ── restore ──▶ last Restored (0 without a newcomer, or when it ended during the regroup)
          ── first step ──▶ first StepCompleted of this or a later generation

The time of the fault is the caller's if it knows (it injected the fault), else the last sign of life of the
lost worker, which is earlier than the fault by up to the time between two stamps: an upper bound. A change
without a loss (growth) begins when its view is installed.

A change that is overtaken by another fault before it committed anything still gets an entry: its first step
is that of the generation that did commit, and phases it never reached are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpresil.telemetry.events import Event


@dataclass(frozen=True)
class Recovery:
    """One change of generation; times in milliseconds. None: it has not happened yet.

    ``kind``: the reason of the first loss ("killed", "exited", "hung", "ended"), "grown", "handed over" when
    members left that were asked to, or "regrouped" when the members stayed. ``at``: the monotonic second at
    which it began.
    """

    generation: int
    kind: str
    workers: tuple[int, ...]
    at: float
    detect_ms: float
    regroup_ms: float | None
    restore_ms: float | None
    first_step_ms: float | None
    total_ms: float | None
    steps_redone: int

    def phases(self) -> dict[str, float]:
        """Return the phases that are over, by name."""
        named = {k: v for k, v in asdict(self).items() if k.endswith("_ms") and v is not None}
        return {k: round(v, 3) for k, v in named.items()}


@dataclass
class _Change:
    generation: int
    kind: str
    workers: list[int]
    fault: float
    detected: float
    target: int | None = None
    committed_before: int = -1
    regrouped: float | None = None
    restored: float | None = None
    completed: float | None = None


def recoveries(events: Iterable[Event], fault_times: Mapping[int, float] | None = None) -> list[Recovery]:
    """Return every change of generation after the first, in order.

    Args:
        events: The job's events in order.
        fault_times: When the fault of a worker was injected, in monotonic seconds, by worker id.
    """
    known = fault_times or {}
    changes: list[_Change] = []
    losses: list[Event] = []
    members: list[int] = []
    newest = -1
    for event in events:
        name = event["event"]
        if name == "WorkerLost" and event["worker"] in members:
            losses.append(event)
        elif name == "ViewInstalled":
            if members:
                changes.append(_begin(event, members, losses, known, newest))
            members, losses = event["members"], []
        elif name == "StepCommitted":
            newest = max(newest, event["step"])
        else:
            for change in changes:
                _note(change, event)
    return [_finished(change) for change in changes]


def _begin(
    view: Event, members: list[int], losses: list[Event], known: Mapping[int, float], newest: int
) -> _Change:
    lost = [event["worker"] for event in losses]
    if not losses:
        new, old = set(view["members"]), set(members)
        kind = "grown" if new - old else "handed over" if old - new else "regrouped"
        return _Change(view["generation"], kind, lost, view["t"], view["t"], committed_before=newest)
    first = losses[0]
    fault = last_sign(first, known)
    return _Change(view["generation"], first["reason"], lost, fault, first["t"], committed_before=newest)


def last_sign(lost: Mapping[str, Any], known: Mapping[int, float]) -> float:
    """Return when the fault behind a `WorkerLost` happened: if that is not known, the last sign of life."""
    fault: float = known.get(lost["worker"], lost.get("last_stamp") or lost["t"])
    return min(fault, float(lost["t"]))


def _note(change: _Change, event: Event) -> None:
    name, generation = event["event"], event.get("generation")
    if name == "StepCompleted" and generation is not None and generation >= change.generation:
        change.completed = change.completed or event["t"]
    if generation != change.generation or change.completed is not None:
        return
    if name in ("Decided", "GroupBuilt"):
        change.regrouped = event["t"]
        if name == "Decided":
            change.target = event["target"]
    elif name == "Restored":
        change.restored = event["t"]


def _finished(change: _Change) -> Recovery:
    regroup: float | None = None
    restore: float | None = None
    step: float | None = None
    reached = change.detected
    if change.regrouped is not None:
        regroup, reached = _ms(reached, change.regrouped), max(reached, change.regrouped)
        restore = 0.0
    if change.restored is not None and restore is not None:
        restore, reached = _ms(reached, change.restored), max(reached, change.restored)
    if change.completed is not None:
        regroup, restore = regroup or 0.0, restore or 0.0
        step = _ms(reached, change.completed)
    total = None if change.completed is None else _ms(change.fault, change.completed)
    redone = 0 if change.target is None else max(0, change.committed_before + 1 - change.target)
    return Recovery(
        generation=change.generation,
        kind=change.kind,
        workers=tuple(change.workers),
        at=change.fault,
        detect_ms=_ms(change.fault, change.detected),
        regroup_ms=regroup,
        restore_ms=restore,
        first_step_ms=step,
        total_ms=total,
        steps_redone=redone,
    )


def _ms(start: float, end: float) -> float:
    return max(0.0, (end - start) * 1e3)


def last_phases(found: list[Recovery]) -> dict[str, Any]:
    """Return the phases of the newest recovery, empty if there was none."""
    return dict(found[-1].phases()) if found else {}
