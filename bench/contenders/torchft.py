"""torchft: a lighthouse, and one replica group for each worker, which torchrun starts again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process

DEFAULT = ("--quorum_tick_ms", "100", "--join_timeout_ms", "10000")
TUNED = ("--quorum_tick_ms", "20", "--join_timeout_ms", "1000", "--heartbeat_timeout_ms", "500")

LONGER = 30


@dataclass(frozen=True)
class Torchft(Contender):
    flags: tuple[str, ...] = DEFAULT

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        bind = ("--bind", f"127.0.0.1:{ports[0]}")
        lighthouse = [python.with_name("torchft_lighthouse"), "--min_replicas", "1", *bind, *self.flags]
        command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        command += ["--max-restarts", "3", SCRIPTS / "train_torchft.py"]
        shared = {"TORCHFT_LIGHTHOUSE": f"http://127.0.0.1:{ports[0]}"}
        return [
            Process("lighthouse", lighthouse, helper=True),
            *(
                Process(f"replica-{number}", command, {**shared, "REPLICA_GROUP_ID": str(number)})
                for number in range(job.workers)
            ),
        ]


CONTENDERS: list[Contender] = [
    Torchft("torchft", "torchft.txt", longer=LONGER),
    Torchft("torchft, tuned", "torchft.txt", longer=LONGER, flags=TUNED),
]
