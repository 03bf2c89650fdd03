"""What the demo sees of a job, reduced to what it needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """A worker process was started."""

    worker: int
    pid: int


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


Happening = Started | StoodBy | Lost | Viewed | StepCommitted | Ended
