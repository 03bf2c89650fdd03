"""From a job to its exit status: the run directory, the checkpoint to resume from, the event loop."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hpresil.base.errors import ConfigError, DataError
from hpresil.launch import whereabouts
from hpresil.launch.agent import Agent
from hpresil.launch.job import Job
from hpresil.launch.run_directory import NODES, RunDirectory
from hpresil.launch.scrapes import Scrapes

NEWEST_S = 120.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
SWITCH_S = 0.0005  # the event loop must not wait 5 ms for a thread that draws a box
# In a process of its own: it imports torch, which the agent must not carry around for the job's life.
NEWEST = (
    "import json, sys; from hpresil.checkpoint import saved; path = saved.newest(sys.argv[1]); "
    "print(json.dumps(path and [str(path), saved.describe(path).version]))"
)


def start(job: Job) -> int:
    """Run ``job`` in this process and return its exit status.

    Raises:
        ConfigError: nothing was started, and the message says why.
    """
    try:
        return _show_and_start(_at_its_place(job))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ConfigError(
            f"the run directory cannot be written: {error.strerror}; make room, or choose another --run-dir"
        ) from error


def _show_and_start(job: Job) -> int:
    scrapes = Scrapes(job.metrics_addr, job.metrics_port)
    if job.cluster is None or job.cluster.hosts:
        scrapes.open()
    try:
        return _start(job, scrapes)
    finally:
        scrapes.close()


def _at_its_place(job: Job) -> Job:
    """Return the job as it is for this node if the coordinator lives on another one by now."""
    cluster, run_dir = job.cluster, job.run_dir
    if cluster is None or run_dir is None or not cluster.hosts:
        return job
    moved = asyncio.run(whereabouts.is_elsewhere(cluster, run_dir))
    return replace(job, cluster=replace(cluster, hosts=not moved))


def _start(job: Job, scrapes: Scrapes) -> int:
    checkpoints = job.run_dir / "checkpoints" if job.run_dir else None
    if job.cluster is not None and not job.cluster.hosts and job.run_dir is not None:
        # The job's own directory may be on a file system that all nodes share; this is this node's part.
        path = job.run_dir / NODES / job.cluster.node
        directory = RunDirectory.open(path, run_id=job.run_id)
    else:
        directory = RunDirectory.open(job.run_dir, run_id=job.run_id, resume=job.resume)
    try:
        logging.basicConfig(
            filename=directory.agent_log, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s"
        )
        logging.raiseExceptions = False  # a full disk must not fill the terminal as well
        sys.setswitchinterval(SWITCH_S)
        resume = newest_checkpoint(checkpoints or directory.checkpoints) if job.resume else None
        return asyncio.run(Agent(job, directory, resume, scrapes).run())
    except DataError as error:  # the record or the checkpoint: a wrong argument, not a failed job
        raise ConfigError(str(error)) from error
    finally:
        directory.close()


def newest_checkpoint(directory: Path) -> tuple[Path, int]:
    """Return the newest complete checkpoint in ``directory`` and its version.

    Raises:
        ConfigError: there is none.
    """
    command = [sys.executable, "-c", NEWEST, str(directory)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=NEWEST_S, check=False)
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"the checkpoints in {directory} cannot be read: {last}")
    found = json.loads(answer.stdout)
    if found is None:
        raise ConfigError(f"{directory} holds no complete checkpoint, so there is nothing to resume")
    return Path(found[0]), int(found[1])
