"""No protection: DistributedDataParallel, and a fault ends the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process


@dataclass(frozen=True)
class Ddp(Contender):
    def why_not(self, job: Job) -> str:
        return "it has no recovery of its own" if job.fault else super().why_not(job)

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(job.workers), SCRIPTS / "train_ddp.py"]
        return [Process("torchrun", command)]


CONTENDERS: list[Contender] = [Ddp("no protection (DDP)", "torch.txt")]
