"""torchft: a lighthouse, and one replica group for each worker, which torchrun starts again.

On several nodes one torchrun starts the replica groups of each.

Its defaults (0.2.0, ``torchft_lighthouse --help`` and ``torchft/manager.py``): a replica is lost after 5 s
without a heartbeat, a quorum waits 60 s for a replica that has heartbeats, and a collective 60 s. The last is
so if tuned too: whoever dies closes its connections, so nothing that is measured waits for it, and a replica
that copies the state must not be given up meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process

TUNED = ("--quorum_tick_ms", "20", "--join_timeout_ms", "1000", "--heartbeat_timeout_ms", "500")
LONGER = {"small": 3000, "5m": 600}
"""Steps that one replica alone trains in the time that the other takes to come back, and more."""
LONGER_ELSE = 30


@dataclass(frozen=True)
class Torchft(Contender):
    def why_not(self, job: Job) -> str:
        """Its lighthouse has one way to end a replica: the kill button of its page."""
        return "torchft goes on without a stopped replica and never ends it" if job.hangs else ""

    def longer(self, job: Job) -> int:
        return LONGER.get(job.size, LONGER_ELSE) if job.nodes == 1 else 0  # a lost node does not come back

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        lighthouse = [python.with_name("torchft_lighthouse"), "--min_replicas", "1"]
        lighthouse += ["--bind", f"127.0.0.1:{ports[0]}", *(TUNED if self.tuned else ())]
        starters = job.nodes if job.nodes > 1 else job.workers
        each = job.workers // starters
        command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(each)]
        command += ["--max-restarts", "3", SCRIPTS / "train_torchft.py"]
        shared = {"TORCHFT_LIGHTHOUSE": f"http://127.0.0.1:{ports[0]}", "BENCH_REPLICAS": str(job.workers)}
        return [
            Process("lighthouse", lighthouse, helper=True),
            *(
                Process(f"torchrun-{first}", command, {**shared, "BENCH_FIRST": str(first)})
                for first in range(0, job.workers, each)
            ),
        ]


CONTENDERS: list[Contender] = [
    Torchft("torchft", "torchft.txt"),
    Torchft("torchft, tuned", "torchft.txt", tuned=True),
]
