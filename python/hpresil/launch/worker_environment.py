"""The environment and the command line of one worker process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpresil.comm import watchdog
from hpresil.launch.job import Job

# The working directory is taken off the path before anything is imported: a file of the user's named
# like one of ours must not be picked up. The shim sets the path the script expects.
STARTER = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); "
    "from hpresil.launch.worker_process import main; main()"
)
LAUNCHER_ONLY = (
    "HPRESIL_SOCKET",
    "HPRESIL_PAGE_FD",
    "HPRESIL_ARENA_FDS",
    "HPRESIL_TRACE_FD",
    "HPRESIL_WORKER",
    "HPRESIL_NODE",
)


@dataclass(frozen=True, kw_only=True)
class Premises:
    """What all workers of a node share, the way to their agent first."""

    node: str
    socket: Path
    run_dir: Path
    log_dir: Path
    arena_fds: tuple[int, ...]
    resume: Path | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one worker stands."""

    worker: int
    index: int
    restarts: int
    page_fd: int
    trace_fd: int
    resume: Path | None


def shared_environment(job: Job, premises: Premises, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that all workers have in common: inherited ones, torchrun's, hpresil's own."""
    env = {name: value for name, value in inherited.items() if name not in LAUNCHER_ONLY}
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("PYTHONHASHSEED", "0")  # iteration order of sets of strings fixes bits as well
    env |= watchdog.worker_environment(env)
    world, cluster = str(job.workers), job.cluster
    env |= {
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": str(job.nproc_per_node if cluster else job.workers),
        "GROUP_RANK": str(cluster.rank if cluster else 0),
        "GROUP_WORLD_SIZE": str(cluster.max_nodes if cluster else 1),
        "ROLE_WORLD_SIZE": world,
        "ROLE_NAME": job.role,
        "MASTER_ADDR": job.master_addr,
        "MASTER_PORT": str(job.master_port),
        "TORCHELASTIC_RUN_ID": job.run_id,
        "TORCHELASTIC_MAX_RESTARTS": str(job.max_restarts),
    }
    env |= job.settings
    env |= {
        "HPRESIL_NODE": premises.node,
        "HPRESIL_SOCKET": str(premises.socket),
        "HPRESIL_ARENA_FDS": ",".join(map(str, premises.arena_fds)),
        "HPRESIL_RUN_DIR": str(premises.run_dir),
        "HPRESIL_LOG_DIR": str(premises.log_dir),
        "HPRESIL_AGENT_PID": str(os.getpid()),
    }
    env.pop("HPRESIL_RESUME", None)
    if cluster is not None:
        env["HPRESIL_NODE_ADDR"] = cluster.address
    return env


def environment(shared: Mapping[str, str], place: Place) -> dict[str, str]:
    """Return the variables of one worker."""
    first = int(shared["GROUP_RANK"]) * int(shared["LOCAL_WORLD_SIZE"])
    env = {
        **shared,
        "RANK": str(first + place.index),
        "LOCAL_RANK": str(place.index),
        "ROLE_RANK": str(first + place.index),
        "TORCHELASTIC_RESTART_COUNT": str(place.restarts),
        "HPRESIL_PAGE_FD": str(place.page_fd),
        "HPRESIL_TRACE_FD": str(place.trace_fd),
        "HPRESIL_WORKER": str(place.worker),
    }
    if place.resume is not None:
        env["HPRESIL_RESUME"] = str(place.resume)
    return env


def command(job: Job) -> list[str]:
    """Return the command line: the interpreter with the shim, told what to run."""
    return [sys.executable, "-u", "-c", STARTER, job.kind, *job.command]
