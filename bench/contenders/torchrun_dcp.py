"""torchrun starts all workers again; they load the newest checkpoint of torch.distributed.checkpoint.

With several nodes there is a torchrun for each, and those that are left go on without a lost one.

Its defaults (torch 2.13): nothing looks for hangs, and a collective waits 30 minutes
(``torch.distributed.constants.default_pg_timeout``); a node is lost after 3 keep-alives of 5 s each, and a
rendezvous with fewer than all nodes waits 30 s for others (``elastic/rendezvous/dynamic_rendezvous.py``).
When a worker has failed, those beside it have 30 s to end, a stopped one too, and no option changes that
(``elastic/multiprocessing/api.py``: ``_poll`` calls ``close`` without the ``--shutdown-timeout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process
from bench.contenders.hpresil import HANG_S

NO_SHARED_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it workers that are started again now and then find the addresses of those before them and wait."""
KEEP_ALIVES = 3
LAST_CALL_S = 1


def nodes_of(job: Job, port: int, tuned: Sequence[str] = ()) -> list[list[str]]:
    """Return the options of the launcher of each node; ``tuned``: more of its rendezvous, ``NAME=VALUE``."""
    shared = ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", "bench"]
    shared += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--nnodes", f"1:{job.nodes}"]
    shared += ["--nproc-per-node", str(job.workers // job.nodes)]
    hosts = [f"is_host={int(node == 0)}" for node in range(job.nodes)]
    return [[*shared, "--rdzv-conf", ",".join((host, *tuned))] for host in hosts]


@dataclass(frozen=True)
class TorchrunDcp(Contender):
    def why_not(self, job: Job) -> str:
        endless = job.hangs and not self.tuned
        return "torchrun does not look for hangs: they end after gloo's 30 minutes" if endless else ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        rendezvous: list[str] = []
        environment = dict(NO_SHARED_STORE)
        if self.tuned:
            rendezvous = [f"keep_alive_interval={round(HANG_S / KEEP_ALIVES)}"]
            rendezvous += [f"keep_alive_max_attempt={KEEP_ALIVES}", f"last_call_timeout={LAST_CALL_S}"]
            environment["BENCH_HANG_S"] = str(HANG_S)
        return [
            Process(
                f"torchrun-{node}",
                [python, "-m", "torch.distributed.run", *node_options, SCRIPTS / "train_dcp.py"],
                environment,
            )
            for node, node_options in enumerate(nodes_of(job, ports[0], rendezvous))
        ]


CONTENDERS: list[Contender] = [
    TorchrunDcp("torchrun + DCP", "torch.txt"),
    TorchrunDcp("torchrun + DCP, tuned", "torch.txt", suites=("recovery",), tuned=True),
]
