"""Agents that call each other, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from hpresil.base.errors import TransferFailed
from hpresil.launch import peers as module
from hpresil.launch.exchange import Book, Exchange
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.taking import Taking
from hpresil.membership import tls
from hpresil.membership.door import Door, call
from hpresil.membership.messages import LENGTH
from hpresil.membership.peer_messages import Fetch
from hpresil.membership.refusals import Refusals

HOST = "127.0.0.1"
OURS = tls.from_secret(b"the secret of this job, 32 bytes")
WAIT_S = 1.0
WISH = Fetch(node="b", generation=2, version=7, stored=False)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        defects: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with asyncio.timeout(30):
            await scenario()
        assert defects == []

    asyncio.run(bounded())


@asynccontextmanager
async def node() -> AsyncIterator[tuple[Peers, str, Refusals]]:
    arenas, refusals = Arenas(), Refusals()
    nothing = Book(lambda version: -1, lambda frame, version: -1, lambda held, node: None)
    exchange = Exchange(arenas, nothing, refusals, WAIT_S, host=HOST, socket=Path("/nowhere"))
    peers = Peers(OURS, refusals, exchange, Taking(arenas, exchange, WAIT_S), wait_s=WAIT_S)
    address = await peers.open(HOST)
    try:
        yield peers, address, refusals
    finally:
        await peers.close()
        arenas.close()


@asynccontextmanager
async def liar(visit: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A member of the job that does not keep to the protocol."""
    door = Door(visit, OURS, Refusals())
    port = await door.open(HOST, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await door.close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "", "nonsense", "127.0.0.1:99999", "x" * 300 + ":80"])
def test_an_address_where_nobody_is_is_an_error_of_the_transfer_only(address: str) -> None:
    async def scenario() -> None:
        async with node() as (newcomer, _, _):
            with pytest.raises(TransferFailed):
                await newcomer.fetch(address, WISH, 0)
            assert "b" in await newcomer.probe({"b": address})

    run(scenario)


def test_probing_says_who_is_there_and_why_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.5)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    async def scenario() -> None:
        async with node() as (asking, _, _), node() as (_, there, _), liar(mute) as silent:
            asked = {"there": there, "silent": silent, "gone": f"{HOST}:1"}
            found = await asking.probe(asked)
            assert list(found) == ["silent", "gone"]
            assert "no answer" in found["silent"]
            assert f"{HOST}:1" in found["gone"]

    run(scenario)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda b: LENGTH.pack(len(b)) + b)),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_a_member_says_the_door_stays_open(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        async with node() as (_, address, refusals), node() as (asking, _, _):
            host, _, port = address.rpartition(":")
            for piece in pieces:
                reader, writer = await call(host, int(port), OURS, 5)
                writer.write(piece)
                writer.write(LENGTH.pack(0xFFFFFFFF))
                await reader.read()
                writer.transport.abort()
            assert refusals.counts["peer"] == len(pieces)
            assert await asking.probe({"b": address}) == {}

    run(scenario)
