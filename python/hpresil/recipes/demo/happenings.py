"""What the demo sees of a job: the events that concern it, typed. Others are passed over."""

from __future__ import annotations

from dataclasses import dataclass

from hpresil.telemetry.events import Event


@dataclass(frozen=True)
class Joined:
    """The agent of another node than the coordinator's joined."""

    node: str
    pid: int


@dataclass(frozen=True)
class Started:
    """A worker process was started; ``node`` is empty on the coordinator's node."""

    worker: int
    pid: int
    node: str = ""


@dataclass(frozen=True)
class StoodBy:
    """A spare made its dry step and waits for a rank."""

    worker: int


@dataclass(frozen=True)
class Lost:
    """A worker is dead, or was hung and is dead now."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Viewed:
    """A view was installed; ``members[r]`` is the worker of rank ``r``."""

    generation: int
    members: list[int]


@dataclass(frozen=True)
class StepCommitted:
    """A step entered the record."""

    step: int
    loss: float
    generation: int
    world_size: int
    time: float


@dataclass(frozen=True)
class Ended:
    """The job is over."""

    status: int
    reason: str


Happening = Joined | Started | StoodBy | Lost | Viewed | StepCommitted | Ended


def happening(event: Event) -> Happening | None:
    """Return what ``event`` means to the demo, None if nothing."""
    match event:
        case {"event": "NodeJoined", "node": node, "pid": pid}:
            return Joined(node, pid)
        case {"event": "WorkerStarted", "worker": worker, "pid": pid}:
            return Started(worker, pid, event.get("node", ""))
        case {"event": "WorkerReady", "worker": worker, "pristine": False}:
            return StoodBy(worker)
        case {"event": "WorkerLost", "worker": worker, "reason": reason}:
            return Lost(worker, reason)
        case {"event": "ViewInstalled", "generation": generation, "members": members}:
            return Viewed(generation, members)
        case {"event": "StepCommitted", "step": step, "generation": generation, "world_size": size}:
            return StepCommitted(step, event["loss"], generation, size, event["t"])
        case {"event": "JobEnded", "status": status, "reason": reason}:
            return Ended(status, reason)
    return None
