"""NVIDIA Resiliency Extension's ft_launcher: torchrun with heartbeats; DCP's newest checkpoint is loaded.

Its defaults (0.4.1, ``fault_tolerance/config.py`` and ``launcher.py``): a worker is hung if its first
heartbeat takes an hour or the next 45 minutes, which is looked at every 5 s; workers that are told to end get
30 s (``--workers-stop-timeout``); a rendezvous with fewer than all nodes waits 30 s for others. That a
node is lost after 3 keep-alives of 5 s each is no option of it (``_ft_rendezvous.py``), tuned or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process
from bench.contenders.hpresil import HANG_S
from bench.contenders.torchrun_dcp import LAST_CALL_S, NO_SHARED_STORE, nodes_of

CHECK_S = 0.1
END_S = 1


@dataclass(frozen=True)
class NvrxLauncher(Contender):
    def why_not(self, job: Job) -> str:
        endless = job.hangs and not self.tuned
        return "a worker may be without a heartbeat for 45 minutes by default" if endless else ""

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        rendezvous: list[str] = []
        options: list[str] = []
        if self.tuned:
            rendezvous = [f"last_call_timeout={LAST_CALL_S}"]
            options = ["--workers-stop-timeout", str(END_S), "--ft-workload-check-interval", str(CHECK_S)]
            options += ["--ft-rank-heartbeat-timeout", str(HANG_S)]
        launcher = [python, "-m", "nvidia_resiliency_ext.fault_tolerance.launcher", *options]
        return [
            Process(f"launcher-{node}", [*launcher, *node_options, SCRIPTS / "train_dcp.py"], NO_SHARED_STORE)
            for node, node_options in enumerate(nodes_of(job, ports[0], rendezvous))
        ]


CONTENDERS: list[Contender] = [
    NvrxLauncher("NVRx ft_launcher + DCP", "nvrx_launcher.txt"),
    NvrxLauncher("NVRx ft_launcher + DCP, tuned", "nvrx_launcher.txt", suites=("recovery",), tuned=True),
]
