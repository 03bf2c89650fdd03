"""The agent's part in a job of several nodes: the way to the coordinator, and the other agents."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from hpresil import native
from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError, NativeError, TransferFailed
from hpresil.base.tasks import Tasks
from hpresil.base.version import VERSION
from hpresil.launch import ways, whereabouts
from hpresil.launch.cluster import Cluster
from hpresil.launch.exchange import Book, Exchange
from hpresil.launch.frame_traffic import FrameTraffic
from hpresil.launch.lease import Lease
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.succession import Office, Succession
from hpresil.launch.taking import Taking
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.membership.peer_messages import Elected
from hpresil.membership.refusals import Refusals
from hpresil.membership.server import Server

QUIET_S = 3.0


@dataclass(frozen=True)
class Ground:
    """What the network stands on: the rest of the agent.

    Attributes:
        told: Called with what the coordinator says.
        over: Returns whether the job has ended.
        generation: Returns the newest generation that this agent has seen.
        alive: Returns the workers that live or are being started.
        keep: Called with those of them that the coordinator knows; the others are killed.
        alone: Called with the reason when there is no coordinator any more.
        office: For the case that the coordinator is to live here.
        socket: Where agents of this machine may take frames.
        alone_s: How long to look for a coordinator.
        restore_s: How long a newcomer's state may take.
    """

    told: Callable[[m.ToAgent], None]
    over: Callable[[], bool]
    generation: Callable[[], int]
    alive: Callable[[], list[int]]
    keep: Callable[[list[int]], None]
    alone: Callable[[str], None]
    office: Office
    socket: Path
    alone_s: float
    restore_s: float


class Network:
    """This node's way to the coordinator, and its place among the others.

    Args:
        node: Its name.
        cluster: Where it stands; None: it is the only one.
        refusals: Counts what is turned away at its door.
    """

    def __init__(self, node: str, cluster: Cluster | None, refusals: Refusals) -> None:
        self._node, self._cluster, self._refusals = node, cluster, refusals
        self._lease = Lease(cluster.lease) if cluster and cluster.lease else None
        self._tasks = Tasks(_defect)
        self._address = ""
        self._proposal = (0, 0)
        self._succession: Succession | None = None
        self.client = Client(keeps=cluster is not None and not cluster.hosts)

    def claim(self) -> None:
        """Take the lease, if there is one, because the coordinator begins here.

        Raises:
            ConfigError: Another coordinator holds it.
        """
        if self._lease is not None and not self._lease.take():
            raise ConfigError(
                f"{self._lease.path}: another coordinator holds this lease; choose another file"
            )

    async def connect(
        self, here: Path, run_dir: Path, tell: Callable[[str], None], stack: AsyncExitStack
    ) -> None:
        """Connect to the coordinator: through the socket ``here`` if it is on this node.

        ``tell`` is called, with words for people, when it is not there yet.

        Raises:
            ConfigError: Whoever is there does not belong to the job.
            DeadlineExceeded: Nobody is there in time.
        """
        stack.push_async_callback(self.client.close)
        if self._cluster is None or self._cluster.hosts:
            await self.client.connect(here)
        else:
            longest_s = self._cluster.connect_timeout_s
            news = f"waiting for the coordinator at {self._cluster.place}, for {longest_s:g} s at most"
            late = asyncio.get_running_loop().call_later(QUIET_S, tell, news)
            try:
                await whereabouts.call(self.client, self._cluster, run_dir)
            finally:
                late.cancel()

    async def join(
        self,
        frames: FrameTraffic,
        arenas: Arenas,
        ground: Ground,
        server: Server | None,
        stack: AsyncExitStack,
    ) -> None:
        """Open the door for other agents, if there are any, then introduce this one."""
        self._ground = ground
        if self._cluster is not None:
            await self._open_door(self._cluster, frames, arenas, server)
            stack.push_async_callback(self._close)
            self._tasks.start(self.client.stay())
        self.client.join(self._introduction())

    async def _open_door(
        self, cluster: Cluster, frames: FrameTraffic, arenas: Arenas, server: Server | None
    ) -> None:
        wait_s = self._ground.restore_s
        try:
            native.open_libcrypto()
        except NativeError as error:
            raise ConfigError(str(error)) from error
        book = Book(frames.stored, frames.hold, frames.release)
        host, socket = await ways.numeric(cluster.address), self._ground.socket
        exchange = Exchange(arenas, book, self._refusals, wait_s, host=host, socket=socket)
        taking = Taking(arenas, exchange, wait_s)
        peers = frames.peers = Peers(cluster.credentials, self._refusals, exchange, taking, wait_s=wait_s)
        self._address = await peers.open(cluster.address)
        self._tasks.start(exchange.watch())
        peers.elected = self._told_of
        succession = self._succession = Succession(
            cluster,
            self._lease,
            self.client,
            peers,
            self._address,
            introduction=self._introduction,
            accepted=self._accepted,
            office=self._ground.office,
        )
        if server is not None:
            succession.serve(server)
        else:
            succession.standing.bound_to(self.client.peer)

    def _introduction(self) -> m.AgentJoined:
        if self._succession is None:
            return m.AgentJoined(node=self._node, pid=os.getpid())
        return m.AgentJoined(
            node=self._node,
            pid=os.getpid(),
            address=self._address,
            build=VERSION,
            term=self._succession.standing.term,
            generation=self._ground.generation(),
            workers=self._ground.alive(),
            copy=self._succession.standing.newest_copy,
        )

    # ------------------------------------------------------------------ the coordinator of the moment

    async def listen(self) -> str:
        """Pass on what the coordinator says, and find the next one if it is lost; return why that failed."""
        while True:
            why = await self._hear()
            if self._ground.over() or self._succession is None:
                return why
            self._ground.alone(why)
            if not await self._succession.next(self._ground.alone_s):
                return why

    async def _hear(self) -> str:
        try:
            async for message in self.client:
                match message:
                    case m.Accepted():
                        self._accepted(message)
                    case m.Withdrawn(term=term):
                        if self._succession and self._succession.standing.released(term):
                            self.client.leave()
                    case m.StateCopy():
                        self._keep_copy(message)
                    case m.Heard():
                        self.client.heard(message.said)
                    case _:
                        self._ground.told(message)
        except (OSError, TransferFailed) as error:
            return f": {error}"
        return ""

    def _accepted(self, accepted: m.Accepted) -> None:
        if self._succession is not None:
            self._succession.standing.accepted(accepted.term)
            self._succession.peers.exchange.open(accepted.frames_key)
        self._ground.keep(accepted.workers)

    def _keep_copy(self, copy: m.StateCopy) -> None:
        assert self._succession is not None
        self._succession.standing.keep(copy, now())
        if (copy.term, copy.proposal) != self._proposal:
            self._proposal = copy.term, copy.proposal
            self.client.say(m.Copied(node=self._node, term=copy.term, proposal=copy.proposal))

    def _told_of(self, elected: Elected) -> None:
        """Another agent says that it is the coordinator: follow it if it is a later one."""
        assert self._succession is not None
        if elected.node != self._node and self._succession.standing.heard_of(elected):
            self._tasks.start(self._succession.step_down())
            if self._succession.standing.bound:
                self.client.leave()

    # ------------------------------------------------------------------ the other agents

    def probe(self, message: m.Probe) -> None:
        """Try to reach other agents, as the coordinator asks."""
        self._tasks.start(self._probe(message.addresses))

    async def _probe(self, addresses: dict[str, str]) -> None:
        assert self._succession is not None
        failed = await self._succession.peers.probe(addresses)
        self.client.say(m.Reached(node=self._node, tried=addresses, failed=failed))

    async def _close(self) -> None:
        await self._tasks.close()
        if self._succession is not None:
            self._succession.close()
            await self._succession.peers.close()


def _defect(error: BaseException) -> None:
    raise error  # the event loop's handler hears of it
