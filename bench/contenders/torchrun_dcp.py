"""torchrun starts all workers again; they load the newest checkpoint of torch.distributed.checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process

NO_SHARED_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it workers that are started again now and then find the addresses of those before them, and wait."""


@dataclass(frozen=True)
class TorchrunDcp:
    name: str = "torchrun + DCP"
    requirements: str = "torch.txt"
    protects: bool = True

    def why_not(self, job: Job) -> str:
        hangs = job.fault is not None and job.fault.kind == "hang"
        return "torchrun does not look for hangs: they end after gloo's 30 minutes" if hangs else ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "3"]
        command += ["--nproc-per-node", str(job.workers), SCRIPTS / "train_dcp.py"]
        return [Process("torchrun", command, NO_SHARED_STORE)]


CONTENDERS: list[Contender] = [TorchrunDcp()]
