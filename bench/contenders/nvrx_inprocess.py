"""NVIDIA Resiliency Extension's in-process restart with one hot spare; DCP's newest checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process


@dataclass(frozen=True)
class NvrxInprocess(Contender):
    tuned: bool = False

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        world = job.workers + (1 if job.fault else 0)
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
            "WORLD_SIZE": str(world),
            "BENCH_ACTIVE": str(job.workers),
            "BENCH_TUNED": str(int(self.tuned)),
        }
        # LOCAL_RANK stays unset: with it a device is looked for.
        script = SCRIPTS / "train_nvrx.py"
        return [
            Process(f"rank-{rank}", [python, script], {**shared, "RANK": str(rank)}) for rank in range(world)
        ]


CONTENDERS: list[Contender] = [
    NvrxInprocess("NVRx in-process, hot spare", "nvrx_inprocess.txt"),
    NvrxInprocess("NVRx in-process, hot spare, tuned", "nvrx_inprocess.txt", tuned=True),
]
