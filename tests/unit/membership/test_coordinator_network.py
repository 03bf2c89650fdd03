"""The coordinator's port: agents of other nodes, and all that an agent must not be able to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from at_the_door import HOST, OURS, eventually, free_port, run, throw
from hypothesis import given, settings, strategies as st

from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError
from hpresil.membership import connections, messages as m
from hpresil.membership.client import Client
from hpresil.membership.connections import Connections, Listen
from hpresil.membership.door import call
from hpresil.membership.refusals import Refusals
from hpresil.membership.server import Server
from hpresil.membership.state import Settings, begin

FAR = m.AgentJoined(node="far", pid=1, address="127.0.0.1:9")


@asynccontextmanager
async def serving(directory: Path, port: int) -> AsyncIterator[Server]:
    server = Server(
        directory / "sockets" / "c",
        begin(Settings(workers=2, nnodes=2), now()),
        listen=Listen(HOST, port, OURS),
        tick_s=0.02,
    )
    try:
        await server.start()
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def agent(port: int, joined: m.AgentJoined = FAR) -> AsyncIterator[Client]:
    client = Client()
    client.connected(*await call(HOST, port, OURS, 5.0))
    client.join(joined)
    try:
        yield client
    finally:
        await client.close()


def test_a_port_in_use_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(tmp_path / "one", port):
            with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{port}"):
                async with serving(tmp_path / "two", port):
                    pass
            assert os.listdir(tmp_path / "two" / "sockets") == []

    run(scenario)


def test_an_agent_speaks_for_its_own_node_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        async with serving(tmp_path, port) as server, agent(port) as client:
            client.say(m.AgentJoined(node="ghost", pid=2, address="127.0.0.1:8"))
            client.say(m.Reached(node="near", tried={"far": "127.0.0.1:9"}))
            client.say(m.FrameSealed(node="near", version=9, frame=0))
            await eventually(lambda: server.refused.get("foreign node") == 3)
            assert set(server.state.nodes) == {"far"}
            assert server.state.sealed == {}

    run(scenario)


@pytest.mark.parametrize(
    ("joined", "why"),
    [
        (m.AgentJoined(node="far", pid=2, address="x:1", build="0.0.0"), "install the same version"),
        (m.AgentJoined(node="taken", pid=2, address="x:1"), "is connected already"),
    ],
)
def test_who_is_not_taken_in_is_told_why(tmp_path: Path, joined: m.AgentJoined, why: str) -> None:
    async def scenario() -> None:
        port = free_port()
        taken = m.AgentJoined(node="taken", pid=1, address="x:2")
        async with serving(tmp_path, port), agent(port, taken), agent(port, joined) as refused:
            (rejected,) = [action async for action in refused]
            assert isinstance(rejected, m.Rejected)
            assert why in rejected.reason

    run(scenario)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=300)), min_size=1, max_size=5))
def test_whatever_bytes_come_to_the_port_the_agents_of_the_job_stay(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[bool, bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("c")

    async def scenario() -> None:
        port = free_port()
        async with serving(directory, port) as server, agent(port):
            await eventually(lambda: "far" in server.state.nodes)
            for member, data in pieces:
                if not member:
                    await throw(port, data)
                    continue
                reader, writer = await call(HOST, port, OURS, 5.0)
                writer.write(m.LENGTH.pack(m.MAX_FRAME_BYTES + len(data)) + data)
                await reader.read()
                writer.transport.abort()
            strangers = sum(not member for member, _ in pieces)
            await eventually(lambda: server.refused.get("stranger", 0) == strangers)
            await eventually(lambda: server.refused.get("invalid frame", 0) == len(pieces) - strangers)
            assert set(server.state.nodes) == {"far"}

    run(scenario)


def test_a_pause_of_the_coordinator_itself_is_no_silence_of_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(connections, "now", lambda: clock[0])
    gone: list[str] = []

    async def scenario() -> None:
        port = free_port()
        made = Connections(
            tmp_path / "sockets" / "c",
            Listen(HOST, port, OURS),
            Refusals(),
            on_said=lambda node, message: None,
            on_gone=lambda node, why: gone.append(node),
            on_defect=lambda error: None,
        )
        await made.open()
        async with agent(port):
            await eventually(lambda: made.nodes() == ["far"])
            made.drop_silent()
            clock[0] += 60.0  # stopped, and woken up again
            made.drop_silent()
            await asyncio.sleep(0.1)
            assert gone == []
            for _ in range(12):
                clock[0] += 0.5
                made.drop_silent()
            await eventually(lambda: gone == ["far"])
        await made.close()

    run(scenario)
