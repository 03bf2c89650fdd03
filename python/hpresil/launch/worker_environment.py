"""The environment and the command line of one worker process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpresil.launch.job import Job

# The working directory is taken off the path before anything is imported: a file of the user's named
# like one of ours must not be picked up. The shim sets the path the script expects.
STARTER = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); "
    "from hpresil.launch.worker_process import main; main()"
)
LAUNCHER_ONLY = ("HPRESIL_SOCKET", "HPRESIL_PAGE_FD", "HPRESIL_ARENA_FDS", "HPRESIL_WORKER")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one worker stands and how it reaches its agent."""

    worker: int
    index: int
    restarts: int
    socket: Path
    page_fd: int
    arena_fds: tuple[int, ...]
    run_dir: Path
    log_dir: Path
    resume: Path | None
    master_port: int


def environment(job: Job, place: Place, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the worker: the inherited ones, torchrun's, and hpresil's own."""
    env = {name: value for name, value in inherited.items() if name not in LAUNCHER_ONLY}
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("PYTHONHASHSEED", "0")  # iteration order of sets of strings fixes bits as well
    index, world = str(place.index), str(job.workers)
    env |= {
        "RANK": index,
        "LOCAL_RANK": index,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_RANK": index,
        "ROLE_WORLD_SIZE": world,
        "ROLE_NAME": job.role,
        "MASTER_ADDR": job.master_addr,
        "MASTER_PORT": str(place.master_port),
        "TORCHELASTIC_RUN_ID": job.run_id,
        "TORCHELASTIC_RESTART_COUNT": str(place.restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(job.max_restarts),
    }
    env |= job.settings
    env |= {
        "HPRESIL_SOCKET": str(place.socket),
        "HPRESIL_PAGE_FD": str(place.page_fd),
        "HPRESIL_ARENA_FDS": ",".join(map(str, place.arena_fds)),
        "HPRESIL_WORKER": str(place.worker),
        "HPRESIL_RUN_DIR": str(place.run_dir),
        "HPRESIL_LOG_DIR": str(place.log_dir),
        "HPRESIL_AGENT_PID": str(os.getpid()),
    }
    env.pop("HPRESIL_RESUME", None)
    if place.resume is not None:
        env["HPRESIL_RESUME"] = str(place.resume)
    return env


def command(job: Job) -> list[str]:
    """Return the command line: the interpreter with the shim, told what to run."""
    return [sys.executable, "-u", "-c", STARTER, job.kind, *job.command]
