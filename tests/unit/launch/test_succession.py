"""Agents without workers, in one process, that lose their coordinator: who is the next one?"""

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
from hpresil.launch.lease import Lease
from hpresil.launch.network import Ground, Network
from hpresil.launch.succession import Office
from hpresil.membership import machine, messages as m, takeover, tls
from hpresil.membership.connections import Listen
from hpresil.membership.peer_messages import Elected
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


def test_of_three_agents_the_two_that_are_left_make_a_coordinator_and_keep_their_workers(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        workers, keys = [agent.workers for agent in agents[1:]], [agent.frames_key for agent in agents]
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        new = chief(agents[1:])
        assert new is not None
        assert new.server is not None
        server = new.server
        await eventually(lambda: server.state.phase == "training" and len(server.state.members) == 2)
        assert [agent.workers for agent in agents[1:]] == workers
        assert (server.state.term, server.state.host) == (2, new.name)
        assert server.state.generation >= 1000
        assert server.state.decision is not None
        assert server.state.decision.target == 7
        assert [agent.frames_key for agent in agents[1:]] == keys[1:] == keys[:1] * 2
        for agent in agents[1:]:
            assert agent.term == 2
            await agent.die()

    run(scenario)


def test_an_error_that_was_counted_before_a_takeover_is_not_counted_again(tmp_path: Path) -> None:
    """The copies hold it before its agent is told so, and the agent says it again."""

    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        failed = m.SlotFailed(step=7, slot=0, kind="exception", error="ValueError", traceback="", retry=True)
        client = agents[2].network.client
        client.say(m.Relayed(worker=agents[2].workers[0], said=failed))
        server = agents[0].server
        assert server is not None
        await eventually(lambda: server.state.failures)
        await eventually(lambda: all(copied(agent).failures for agent in agents[1:]))
        assert any(getattr(kept, "said", None) == failed for kept in client._unheard), "told too early"
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        new = chief(agents[1:])
        assert new is not None
        assert new.server is not None
        state = new.server
        await eventually(lambda: state.state.phase == "training")
        await asyncio.sleep(0.1)
        assert [failure.count for failure in state.state.failures] == [1]
        for agent in agents[1:]:
            await agent.die()

    run(scenario)


def test_an_agent_that_came_to_a_coordinator_which_never_began_goes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        wanderer, first = agents[2], agents[0].server
        assert first is not None
        succession = wanderer.network._succession
        assert succession is not None
        assert succession.standing.copy is not None
        beside = agents[1].network._succession
        assert beside is not None
        candidate = Server(
            tmp_path / "candidate" / "c", copied(wanderer), taking_over=("n1", 7, succession.standing.copy)
        )
        await candidate.start()
        beside.peers.joining = candidate.visit
        wanderer.network._told_of(Elected(node="n1", term=7, address=agents[1].network._address))
        await eventually(lambda: wanderer.term == 7)  # the candidate may count on it
        assert not await candidate.begun()
        await candidate.close()
        await eventually(lambda: wanderer.term == 1 and len(first.state.nodes) == 3)
        for agent in agents:
            await agent.die()

    run(scenario)


def test_one_of_three_makes_no_coordinator_and_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        await agents[0].die()
        await agents[1].die()
        await asyncio.sleep(4.0)  # longer than an election and its patience
        assert agents[2].server is None
        assert agents[2].workers
        await agents[2].die()

    run(scenario)


def test_of_two_agents_the_one_that_is_left_needs_the_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 2, lease=tmp_path / "lease")
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        assert not Lease(tmp_path / "lease").take()
        await agents[1].die()
        assert Lease(tmp_path / "lease").take()

    run(scenario)


def test_while_the_coordinator_holds_the_lease_nobody_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 2, lease=tmp_path / "lease")
        first = agents[0].lease
        assert first is not None
        agents[0].lease = None  # it dies, but its lock is not free yet
        await agents[0].die()
        await asyncio.sleep(2.0)
        assert chief(agents[1:]) is None
        first.release()
        await eventually(lambda: chief(agents[1:]))
        await agents[1].die()

    run(scenario)


def test_an_agent_whose_connection_breaks_comes_back_without_its_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        server = agents[0].server
        assert server is not None
        old = agents[2].workers
        agents[2].network.client.leave()
        await eventually(lambda: agents[2].workers and agents[2].workers != old)
        await eventually(lambda: len(server.state.nodes) == 3)
        assert server.state.term == 1
        assert not set(old) & set(server.state.workers)
        for agent in agents:
            await agent.die()

    run(scenario)
