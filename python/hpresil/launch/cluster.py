"""Where a node stands in a job of several nodes, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpresil.membership.connections import Listen
from hpresil.membership.tls import Credentials


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where this node stands in a job of several.

    Attributes:
        node: Its name, distinct from all others.
        rank: Its number, for scripts (GROUP_RANK).
        hosts: The job's first coordinator lives here.
        host: Where that listens; ``port`` too.
        address: The address of this machine that other nodes reach it at.
        nnodes: How many nodes the job waits for before it begins.
        max_nodes: How many it is made for.
        credentials: What proves that an agent belongs to the job.
        lease: A file on a file system of all nodes, whose lock makes a coordinator; None: the votes do.
        connect_timeout_s: How long to wait for the coordinator to be up.
    """

    node: str
    rank: int
    hosts: bool
    host: str
    port: int
    address: str
    nnodes: int
    max_nodes: int
    credentials: Credentials
    lease: Path | None = None
    connect_timeout_s: float = 300.0

    @property
    def place(self) -> str:
        """HOST:PORT of the first coordinator."""
        return f"{self.host}:{self.port}"

    def listen(self) -> Listen | None:
        """Return where the coordinator listens if it lives here."""
        return Listen(self.host, self.port, self.credentials) if self.hosts else None
