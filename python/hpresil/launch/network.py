"""The agent's part in a job of several nodes: the way to the coordinator, and the other agents."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.version import VERSION
from hpresil.launch.frame_traffic import FrameTraffic
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.membership.connections import Listen
from hpresil.membership.refusals import Refusals
from hpresil.membership.tls import Credentials

QUIET_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where this node stands in a job of several.

    Attributes:
        node: Its name, distinct from all others.
        rank: Its number, for scripts (GROUP_RANK).
        hosts: The coordinator lives here.
        host: Where the coordinator listens; ``port`` too.
        address: The address of this machine that other nodes reach it at.
        nnodes: How many nodes the job waits for before it begins.
        max_nodes: How many it is made for.
        credentials: What proves that an agent belongs to the job.
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
    connect_timeout_s: float = 300.0

    def listen(self) -> Listen | None:
        """Return where the coordinator listens if it lives here."""
        return Listen(self.host, self.port, self.credentials) if self.hosts else None


class Network:
    """This node's way to the coordinator, and its place among the others.

    Args:
        node: Its name.
        cluster: Where it stands; None: it is the only one.
        refusals: Counts what is turned away at its door.
        tell: Told, for people, when the coordinator is not there yet.
    """

    def __init__(
        self, node: str, cluster: Cluster | None, refusals: Refusals, tell: Callable[[str], None]
    ) -> None:
        self._node, self._cluster, self._refusals, self._tell = node, cluster, refusals, tell
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, here: Path, stack: AsyncExitStack) -> Client:
        """Connect to the coordinator: through the socket ``here`` if it is on this node."""
        cluster = self._cluster
        if cluster is None or cluster.hosts:
            self._client = await Client.connect(here)
        else:
            place, longest_s = f"{cluster.host}:{cluster.port}", cluster.connect_timeout_s
            news = f"waiting for the coordinator at {place}, for {longest_s:g} s at most"
            late = asyncio.get_running_loop().call_later(QUIET_S, self._tell, news)
            try:
                self._client = await Client.call(cluster.host, cluster.port, cluster.credentials, longest_s)
            finally:
                late.cancel()
        stack.push_async_callback(self._client.close)
        return self._client

    async def join(self, frames: FrameTraffic, arenas: Arenas, wait_s: float, stack: AsyncExitStack) -> None:
        """Open the door for other agents, if there are any, then introduce this one."""
        if self._cluster is None:
            self._client.say(m.AgentJoined(node=self._node, pid=os.getpid()))
            return
        self._peers = frames.peers = Peers(
            self._cluster.credentials,
            arenas,
            self._refusals,
            stored=frames.stored,
            hold=frames.hold,
            release=frames.release,
            wait_s=wait_s,
        )
        address = await self._peers.open(self._cluster.address)
        stack.push_async_callback(self._close)
        self._client.say(
            m.AgentJoined(
                node=self._node,
                pid=os.getpid(),
                address=address,
                build=VERSION,
            )
        )
        self._later(self._client.stay())

    def probe(self, message: m.Probe) -> None:
        """Try to reach other agents, as the coordinator asks."""
        self._later(self._probe(message.addresses))

    async def _probe(self, addresses: dict[str, str]) -> None:
        failed = await self._peers.probe(addresses)
        self._client.say(m.Reached(node=self._node, tried=addresses, failed=failed))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._peers.close()

    def _later(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # an exception is a defect, and the event loop's handler hears of it
