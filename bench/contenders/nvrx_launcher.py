"""NVIDIA Resiliency Extension's ft_launcher: torchrun with heartbeats; DCP's newest checkpoint is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Process
from bench.contenders.torchrun_dcp import NO_SHARED_STORE


@dataclass(frozen=True)
class NvrxLauncher(Contender):
    def why_not(self, job: Job) -> str:
        hangs = job.fault is not None and job.fault.kind == "hang"
        if hangs:
            return "its heartbeats need calls in the script that this one does not make"
        return super().why_not(job)

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "nvidia_resiliency_ext.fault_tolerance.launcher", "--nnodes", "1"]
        command += ["--nproc-per-node", str(job.workers), "--max-restarts", "3", "--rdzv-backend", "c10d"]
        command += ["--rdzv-endpoint", f"127.0.0.1:{ports[0]}", "--rdzv-id", "bench"]
        return [Process("launcher", [*command, SCRIPTS / "train_dcp.py"], NO_SHARED_STORE)]


CONTENDERS: list[Contender] = [NvrxLauncher("NVRx ft_launcher + DCP", "nvrx_launcher.txt")]
