"""What `hpresil run` was asked to do, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hpresil.base.config import Config
from hpresil.launch.cluster import Cluster
from hpresil.membership.state import Settings


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job on one node.

    Attributes:
        command: The script, the module or the program, followed by its arguments.
        start_method: "forkserver" forks workers from a process that has imported torch, "spawn" starts a new
            interpreter for each; programs are always spawned.
        kind: How to start the command: "script" and "module" by Python, "program" as it is.
        workers: Size of the full group, over all nodes.
        nproc_per_node: Workers of this node in it.
        cluster: Where this node stands among several; None: the job has one node.
        spares: Workers held in reserve.
        min_workers: The smallest group that may train.
        max_restarts: Replacement processes over the whole job.
        run_dir: Where everything is written; None: a new directory under ``runs``.
        record: The file of the record; None: none is written.
        log_dir: Base directory of the workers' logs; None: inside the run directory.
        resume: Continue from the newest checkpoint of the run directory.
        run_id: The name of the job.
        role: The workers' role name.
        config: The settings as far as the launcher knows them (flags, variables, file).
        settings: What the flags set, as ``HPRESIL_*`` variables for the workers.
        shown: Worker indices whose output goes to the terminal; None: who has the lowest rank.
        shutdown_timeout_s: How long workers may take to leave before they are killed.
        master_addr: Given to the script as MASTER_ADDR.
        master_port: Given to the script as MASTER_PORT; 0: a free one.
        metrics_port: Where Prometheus finds the agent's metrics; 0: nowhere.
        metrics_addr: The address of that port.
    """

    command: tuple[str, ...]
    kind: Literal["script", "module", "program"] = "script"
    start_method: Literal["forkserver", "spawn"] = "forkserver"
    workers: int = 1
    nproc_per_node: int = 1
    cluster: Cluster | None = None
    spares: int = 0
    min_workers: int = 1
    max_restarts: int = 16
    run_dir: Path | None = None
    record: Path | None = None
    log_dir: Path | None = None
    resume: bool = False
    run_id: str = ""
    role: str = "default"
    config: Config = field(default_factory=Config)
    settings: dict[str, str] = field(default_factory=dict)
    shown: frozenset[int] | None = None
    shutdown_timeout_s: float = 5.0
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    metrics_port: int = 0
    metrics_addr: str = "127.0.0.1"

    def settings_at(self, node: str, checkpoints: Path, generation: int, *, resumed: bool) -> Settings:
        """Return what the coordinator goes by.

        Args:
            node: Where it begins.
            checkpoints: Where the state goes when the job ends early.
            generation: The newest of the jobs that ran in the run directory before.
            resumed: Workers start from a checkpoint.
        """
        cluster, config = self.cluster, self.config
        places = max(self.nproc_per_node, self.workers + self.spares)
        if cluster is not None:
            places = max(self.nproc_per_node, -(-(self.workers + self.spares) // cluster.max_nodes))
        return Settings(
            workers=self.workers,
            host=node,
            leased=cluster is not None and cluster.lease is not None,
            nnodes=cluster.nnodes if cluster else 1,
            places=places,
            spares=self.spares,
            min_workers=self.min_workers,
            max_restarts=self.max_restarts,
            min_workers_timeout_s=config.min_workers_timeout_s,
            join_timeout_s=config.join_timeout_s,
            save_timeout_s=config.save_timeout_s,
            report_timeout_s=1.5 * config.outside_timeout_s,
            restore_timeout_s=config.restore_timeout_s,
            save_directory=str(checkpoints),
            first_generation=generation,
            resumed=resumed,
        )

    def crew(self, resume: tuple[Path, int] | None) -> str:
        """Return who is to run, and from which saved version, in words."""
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        spares = f" and {self.spares} spare{'s' * (self.spares > 1)}" if self.spares else ""
        nodes = f" on {self.cluster.nnodes} nodes" if self.cluster and self.cluster.nnodes > 1 else ""
        return f"{workers}{spares}{nodes}{f', from version {resume[1]}' if resume else ''}"
