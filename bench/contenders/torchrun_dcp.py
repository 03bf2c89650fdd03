"""torchrun starts all workers again; they load the newest checkpoint of torch.distributed.checkpoint.

With several nodes there is a torchrun for each, and those that are left go on without a lost one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process

NO_SHARED_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it workers that are started again now and then find the addresses of those before them and wait."""


@dataclass(frozen=True)
class TorchrunDcp(Contender):
    def why_not(self, job: Job) -> str:
        hangs = job.fault is not None and job.fault.kind == "hang"
        return "torchrun does not look for hangs: they end after gloo's 30 minutes" if hangs else ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "torch.distributed.run", "--max-restarts", "3", "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", f"127.0.0.1:{ports[0]}", "--rdzv-id", "bench"]
        command += ["--nnodes", f"1:{job.nodes}", "--nproc-per-node", str(job.workers // job.nodes)]
        hosts = [["--rdzv-conf", f"is_host={int(node == 0)}"] for node in range(job.nodes)]
        return [
            Process(f"torchrun-{node}", [*command, *host, SCRIPTS / "train_dcp.py"], NO_SHARED_STORE)
            for node, host in enumerate(hosts)
        ]


CONTENDERS: list[Contender] = [TorchrunDcp("torchrun + DCP", "torch.txt")]
