"""NVIDIA Resiliency Extension's in-process restart with hot spares; DCP's newest checkpoint is loaded.

Its defaults (0.7.0, ``inprocess/wrap.py``): a rank without progress is asked to restart after 60 s and
ended after 90 s, one whose node is gone is given up after 30 s without a heartbeat, all of which is looked at
once a second. What the bench chooses for it is in `scripts/train_nvrx.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process
from bench.contenders.hpresil import HANG_S


@dataclass(frozen=True)
class NvrxInprocess(Contender):
    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        world = job.workers + job.spares
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
            "WORLD_SIZE": str(world),
            "BENCH_ACTIVE": str(job.workers),
            "BENCH_LEAST": str(job.left),
        }
        if self.tuned:
            shared["BENCH_HANG_S"] = str(HANG_S)
        # LOCAL_RANK stays unset: with it a device is looked for.
        script = SCRIPTS / "train_nvrx.py"
        if job.nodes > 1:
            each = job.workers // job.nodes
            starter: list[str | Path] = [python, SCRIPTS / "start_node.py", str(each), script]
            return [
                Process(f"node-{node}", starter, {**shared, "RANK": str(node * each)})
                for node in range(job.nodes)
            ]
        return [
            Process(f"rank-{rank}", [python, script], {**shared, "RANK": str(rank)}) for rank in range(world)
        ]


CONTENDERS: list[Contender] = [
    NvrxInprocess("NVRx in-process, hot spare", "nvrx_inprocess.txt"),
    NvrxInprocess("NVRx in-process, hot spare, tuned", "nvrx_inprocess.txt", tuned=True),
]
