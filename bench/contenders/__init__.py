"""Systems that train the same workload and meet the same faults, one file each.

A contender says how its processes are started; the scripts in ``scripts/`` say what they train, and all leave
the same marks (`scripts/workload.py`). What a contender needs is in ``NAME.txt``; `environment` makes a
virtual environment of its own from it, which has nothing of the project in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SCRIPTS = Path(__file__).with_name("scripts")


@dataclass(frozen=True)
class Fault:
    """What happens to the worker of ``rank`` after the forward pass of ``step``."""

    kind: str  # kill, hang, raise
    rank: int
    step: int


@dataclass(frozen=True)
class Job:
    """One training run: ``size`` of the model (see `scripts/workload.py`), and what it meets."""

    size: str
    workers: int
    steps: int
    fault: Fault | None = None
    save_every: int = 10
    resident_gib: float = 0.0


@dataclass(frozen=True)
class Process:
    """One process to start. ``helper``: it runs until the others have ended, and is ended then."""

    name: str
    command: Sequence[str | Path]
    environment: dict[str, str] = field(default_factory=dict)
    helper: bool = False


class Contender(Protocol):
    """One system in one configuration."""

    name: str
    requirements: str
    """The file in this folder that lists what it needs; "" for the project's own environment."""
    protects: bool
    """Whether it outlives a fault."""

    def why_not(self, job: Job) -> str:
        """Return why it cannot run this job, "" if it can."""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        """Return what to start. ``ports``: eight in a row that are free."""


def all_contenders() -> list[Contender]:
    """Return every contender in the order of the tables, hpresil first."""
    from bench.contenders import ddp, hpresil, nvrx_inprocess, nvrx_launcher, torchft, torchrun_dcp

    found: list[Contender] = []
    for module in (hpresil, torchrun_dcp, nvrx_launcher, nvrx_inprocess, torchft, ddp):
        found += module.CONTENDERS
    return found
