"""Ways to take snapshots: one script each in ``scripts/``, in the environment of its requirements."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS as WORKLOAD, Contender, Job, Process
from bench.contenders.launched import ROOT

SCRIPTS = Path(__file__).with_name("scripts")
TRAINERS = ("idle", "busy")
BUSY_CORES = 1
"""A busy trainer computes on one thread, and its process tree gets as many cores: none is idle beside it."""
MEMORY = Path("/dev/shm")
SOCKETS = Path("/tmp/ckpt_sock")  # of DLRover, which has it in its source


@dataclass(frozen=True)
class Trainer(Job):
    """One process that trains: ``size`` and ``steps`` as `scripts/trainer.py` reads them."""

    does: str = "idle"


@dataclass(frozen=True)
class Method(Contender):
    """One way to take snapshots.

    Attributes:
        script: What it is in ``scripts/``, and its option.
        trainers: What the trainers do that it is measured in.
    """

    script: tuple[str, ...] = ()
    trainers: tuple[str, ...] = TRAINERS

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        assert isinstance(job, Trainer)
        name, *option = self.script
        seen = [WORKLOAD, *([] if self.requirements else [ROOT / "python"])]
        environment = {"PYTHONPATH": os.pathsep.join(map(str, seen))}
        command = [SCRIPTS / name, job.does, *option]
        if job.does == "idle":  # nobody else computes, so a method may have all cores
            environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
        else:
            command = [SCRIPTS / "pinned.py", str(BUSY_CORES), *command]
        command = [python, *command]
        return [Process("trainer", command, environment | self.named_after(directory))]

    def named_after(self, directory: Path) -> dict[str, str]:
        """Return what makes this run's names its own, as environment variables."""
        return {}

    def remove_leftovers(self, directory: Path) -> None:
        """Remove what a run leaves outside of its directory. Its processes have ended."""


class Dlrover(Method):
    def named_after(self, directory: Path) -> dict[str, str]:
        return {"TORCHELASTIC_RUN_ID": directory.parent.name}

    def remove_leftovers(self, directory: Path) -> None:
        for memory in MEMORY.glob(f"{directory.parent.name}_ckpt_shm_*"):
            memory.unlink()
        shutil.rmtree(SOCKETS / directory.parent.name, ignore_errors=True)


OURS, NOTHING, COPIES = "hpresil", "no snapshots", "memcpy, all cores"
NO_PEERS = (OURS, NOTHING, COPIES)
"""The product, what the others are compared with, and a floor."""
_NVRX = "nvrx_launcher.txt"


def _method(
    name: str,
    requirements: str,
    *script: str,
    trainers: tuple[str, ...] = TRAINERS,
    kind: type[Method] = Method,
) -> Method:
    return kind(name, requirements, suites=("snapshot",), script=script, trainers=trainers)


CONTENDERS: list[Method] = [
    _method(COPIES, "torch.txt", "take_copies.py", trainers=("idle",)),
    _method(NOTHING, "torch.txt", "take_nothing.py", trainers=("busy",)),
    _method(OURS, "", "take_hpresil.py"),
    _method("DCP save", "torch.txt", "take_dcp.py", "sync"),
    _method("DCP async_save", "torch.txt", "take_dcp.py", "async"),
    _method("DCP async_save, buffers used again", "torch.txt", "take_dcp.py", "reused"),
    _method("DCP async_save, copied in the background", "torch.txt", "take_dcp.py", "background"),
    _method("torch.save", "torch.txt", "take_torch_save.py"),
    _method("NVRx TorchAsyncCheckpoint", _NVRX, "take_nvrx.py", "torch"),
    _method("NVRx TorchAsyncCheckpoint, forking", _NVRX, "take_nvrx.py", "torch-fork"),
    _method("NVRx local checkpoints", _NVRX, "take_nvrx.py", "local"),
    _method("NVRx local checkpoints, forking", _NVRX, "take_nvrx.py", "local-fork"),
    _method("torchsnapshot async_take", "torchsnapshot.txt", "take_torchsnapshot.py"),
    _method("DLRover flash checkpoint, memory", "dlrover.txt", "take_dlrover.py", kind=Dlrover),
]
