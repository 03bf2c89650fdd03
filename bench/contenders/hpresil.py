"""hpresil with one spare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process

HANG_S = 3.0


@dataclass(frozen=True)
class Hpresil:
    name: str = "hpresil"
    requirements: str = ""
    protects: bool = True
    flags: tuple[str, ...] = ()

    def why_not(self, job: Job) -> str:
        return ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "hpresil.cli.main", "run", "--run-dir", directory / "run"]
        command += ["--nproc-per-node", str(job.workers), "--slots", str(job.workers)]
        command += ["--spares", "1" if job.fault else "0", "--hang-timeout", str(HANG_S)]
        return [Process("launcher", [*command, *self.flags, SCRIPTS / "train_hpresil.py"])]


CONTENDERS: list[Contender] = [Hpresil()]
