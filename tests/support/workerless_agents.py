"""Agents in one process whose workers are numbers; the first of them has the coordinator."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hpresil.base.deadline import now
from hpresil.launch.cluster import Cluster
from hpresil.launch.network import Ground, Network
from hpresil.launch.succession import Office
from hpresil.membership import machine, messages as m, takeover, tls
from hpresil.membership.connections import Listen
from hpresil.membership.refusals import Refusals
from hpresil.membership.server import Server
from hpresil.membership.state import Settings, begin

HOST = "127.0.0.1"
CREDENTIALS = tls.from_secret(b"a secret that is long enough")
FACTS = {"config.slots": "4"}
LIMIT_S = 30.0


class Agent:
    """One agent; its workers are numbers."""

    def __init__(self, directory: Path, name: str, port: int, *, hosts: bool, lease: Path | None) -> None:
        self.name, self.workers = name, list[int]()
        self.said: list[m.ToAgent] = []
        self.server: Server | None = None
        self._directory, self._port = directory / name, port
        self.cluster = Cluster(
            node=name, rank=0, hosts=hosts, host=HOST, port=port, address=HOST, nnodes=3, max_nodes=3,
            credentials=CREDENTIALS, lease=lease,
        )  # fmt: skip
        self.network = Network(name, self.cluster, Refusals())
        self.lease = self.network._lease
        self._stack = AsyncExitStack()
        self.over = False

    @property
    def _socket(self) -> Path:
        return self._directory / "sockets" / "c"

    async def start(self, settings: Settings | None = None) -> None:
        if settings is not None:
            self.network.claim()
            await self._serve(begin(settings, now()), listen=Listen(HOST, self._port, CREDENTIALS))
        await self.network.connect(self._socket, self._directory, lambda text: None, self._stack)
        self._directory.mkdir(exist_ok=True)
        office = Office(self._socket, self._open, self._close)
        ground = Ground(
            told=self._told, over=lambda: self.over, generation=lambda: 0, alive=lambda: list(self.workers),
            keep=self._keep, alone=lambda why: None, office=office, alone_s=20.0, restore_s=5.0,
            socket=self._directory / "f",
        )  # fmt: skip
        frames: Any = SimpleNamespace(stored=None, hold=None, release=None, peers=None)
        await self.network.join(frames, SimpleNamespace(), ground, self.server, self._stack)  # type: ignore[arg-type]
        self._listening = asyncio.create_task(self.network.listen())

    async def _serve(self, state: machine.State, **more: Any) -> None:
        self.server = Server(self._socket, state, tick_s=0.02, **more)
        await self.server.start()

    async def _open(self, copy: m.StateCopy, term: int, address: str, shift_s: float) -> Server:
        state = takeover.rebased(machine.decode_state(copy.state), now() - copy.at)
        await self._serve(state, taking_over=(self.name, term, copy))
        assert self.server is not None
        return self.server

    async def _close(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.close()

    def _keep(self, known: list[int]) -> None:
        self.workers = [worker for worker in self.workers if worker in known]

    def _told(self, message: m.ToAgent) -> None:
        self.said.append(message)
        say = self.network.client.say
        match message:
            case m.Probe():
                self.network.probe(message)
            case m.StartWorker(worker=worker):
                self.workers.append(worker)
                say(m.WorkerStarted(worker=worker, node=self.name, pid=1))
                say(m.Relayed(worker=worker, said=m.Ready(facts=FACTS)))
            case m.Deliver(to=worker, what=m.View(generation=generation)):
                phase, version = ("empty", -1) if generation == 1 else ("computing", 7)
                report = m.Report(generation=generation, version=version, phase=phase)
                say(m.Relayed(worker=worker, said=report))
            case m.Deliver(to=worker, what=m.Decision(generation=generation, target=target)):
                if worker in message.what.sources:
                    restored = m.Restored(generation=generation, version=target, state_bytes=1)
                    say(m.Relayed(worker=worker, said=restored))

    @property
    def term(self) -> int:
        assert self.network._succession is not None
        return self.network._succession.standing.term

    @property
    def frames_key(self) -> bytes:
        assert self.network._succession is not None
        return self.network._succession.peers.exchange.key

    async def die(self) -> None:
        """Vanish, as a process that is killed."""
        self.over = True
        self.network.client.keeps = False
        if self.server is not None:
            await self._close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._stack.aclose()
        if self.lease is not None:
            self.lease.release()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await scenario()

    asyncio.run(bounded())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


async def eventually(what: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.01)


async def trained(directory: Path, count: int, *, lease: Path | None = None) -> list[Agent]:
    """Agents that have begun to train, one worker each; the first has the coordinator."""
    port = free_port()
    agents = [Agent(directory, f"n{i}", port, hosts=i == 0, lease=lease) for i in range(count)]
    settings = Settings(
        workers=count, nnodes=count, places=1, host="n0", leased=lease is not None, save_directory="/saved"
    )
    await agents[0].start(settings)
    for agent in agents[1:]:
        await agent.start()
    server = agents[0].server
    assert server is not None
    await eventually(lambda: server.state.trained and len(server.state.quorum) == count)
    await eventually(lambda: all(has_copy(agent, count) for agent in agents[1:]))
    return agents


def has_copy(agent: Agent, nodes: int) -> bool:
    assert agent.network._succession is not None
    return agent.network._succession.standing.copy is not None and len(copied(agent).quorum) == nodes


def copied(agent: Agent) -> machine.State:
    assert agent.network._succession is not None
    copy = agent.network._succession.standing.copy
    assert copy is not None
    return machine.decode_state(copy.state)


def chief(agents: list[Agent]) -> Agent | None:
    return next((agent for agent in agents if agent.server is not None and agent.term > 1), None)
