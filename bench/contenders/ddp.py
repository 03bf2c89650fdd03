"""No protection: DistributedDataParallel, and a fault ends the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process


@dataclass(frozen=True)
class Ddp:
    name: str = "no protection (DDP)"
    requirements: str = "torch.txt"
    protects: bool = False

    def why_not(self, job: Job) -> str:
        return "a fault ends the job" if job.fault else ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [
            python,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(job.workers),
        ]
        return [Process("torchrun", [*command, SCRIPTS / "train_ddp.py"])]


CONTENDERS: list[Contender] = [Ddp()]
