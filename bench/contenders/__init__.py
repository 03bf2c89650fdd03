"""Systems that train the same workload and meet the same faults, one file each.

A contender says how its processes are started; the scripts in ``scripts/`` say what they train, and all leave
the same marks (`scripts/workload.py`). What a contender needs is in ``NAME.txt``; `environment` makes a
virtual environment of its own from it, which has nothing of the project in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).with_name("scripts")


Mark = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What happens to the worker of ``rank`` after the forward pass of ``step``.

    ``kind``: kill, hang, raise, or node, which kills all workers beside it and who started them.
    """

    kind: str
    rank: int
    step: int


@dataclass(frozen=True)
class Job:
    """One training run: ``size`` of the model (see `scripts/workload.py`), and what it meets.

    ``spares``: how many processes wait beside the workers, of those contenders that keep any.
    """

    size: str
    workers: int
    steps: int
    fault: Fault | None = None
    save_every: int = 10
    resident_gib: float = 0.0
    nodes: int = 1
    spares: int = 1

    @property
    def hangs(self) -> bool:
        """Whether a worker stops without dying."""
        return self.fault is not None and self.fault.kind == "hang"

    @property
    def left(self) -> int:
        """How many workers are left after the fault: a lost worker is replaced, a lost node is not."""
        lost = self.fault is not None and self.fault.kind == "node"
        return self.workers - self.workers // self.nodes if lost else self.workers


@dataclass(frozen=True)
class Process:
    """One process to start. ``helper``: it runs until the others have ended, and is ended then."""

    name: str
    command: Sequence[str | Path]
    environment: dict[str, str] = field(default_factory=dict)
    helper: bool = False


@dataclass(frozen=True)
class Contender:
    """One system in one configuration.

    Attributes:
        requirements: The file in this folder that lists what it needs; "" for the project's own environment.
        suites: Those that it takes part in.
        tuned: Whether its options are chosen for a fast recovery; if not, they are its own defaults, and what
            the bench has to choose is said where it does.
    """

    name: str
    requirements: str = ""
    suites: tuple[str, ...] = ("recovery", "steady")
    tuned: bool = False

    def why_not(self, job: Job) -> str:
        """Return why it cannot run this job, "" if it can."""
        return ""

    def longer(self, job: Job) -> int:
        """Return how many steps more the job needs, if it trains on while a worker is replaced."""
        return 0

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        """Return what to start. ``ports``: some in a row that are free."""
        raise NotImplementedError

    def marks(self, directory: Path) -> list[Mark]:
        """Return what its own records say beside the marks of the scripts, on the same clock."""
        return []


def contenders_of(suite: str) -> list[Contender]:
    """Return those that take part in it in the order of the tables, hpresil first."""
    from bench.contenders import ddp, hpresil, nvrx_inprocess, nvrx_launcher, torchft, torchrun_dcp

    found: list[Contender] = []
    for module in (hpresil, torchrun_dcp, nvrx_launcher, nvrx_inprocess, torchft, ddp):
        found += module.CONTENDERS
    return [contender for contender in found if suite in contender.suites]
