"""Frames that go from one agent's memory to another's, over real connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings, strategies as st

from hpresil.base.errors import TransferFailed
from hpresil.launch import peers as module
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.membership import tls
from hpresil.membership.door import Door, call
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.messages import LENGTH
from hpresil.membership.peer_messages import Coming, Fetch
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


class Node:
    """One agent's memory and door; frame 0 holds ``content``."""

    def __init__(self, content: bytes = b"", version: int = 7) -> None:
        self.arenas, self.refusals = Arenas(), Refusals()
        self.content, self.version = content, version
        self.held: list[int] = []
        self.released: list[tuple[int, str]] = []
        self.peers = Peers(
            OURS,
            self.arenas,
            self.refusals,
            stored=lambda version: 0 if version == self.version else -1,
            hold=self._hold,
            release=lambda held, node: self.released.append((held, node)),
            wait_s=WAIT_S,
        )

    def _hold(self, frame: int, version: int) -> int:
        if version != self.version:
            return -1
        self.held.append(frame)
        return len(self.held)

    async def open(self) -> str:
        await self.arenas.grow(max(len(self.content), 1))
        os.pwrite(self.arenas.fds[0], self.content, 0)
        self.arenas.used[0] = len(self.content)
        return await self.peers.open(HOST)

    def bytes_of(self, frame: int, size: int) -> bytes:
        return os.pread(self.arenas.fds[frame], size, 0)


@asynccontextmanager
async def node(content: bytes = b"", version: int = 7) -> AsyncIterator[tuple[Node, str]]:
    made = Node(content, version)
    address = await made.open()
    try:
        yield made, address
    finally:
        await made.peers.close()
        made.arenas.close()


@asynccontextmanager
async def liar(visit: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A member of the job that does not keep to the protocol."""
    door = Door(visit, OURS, Refusals())
    port = await door.open(HOST, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await door.close()


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, (1 << 20) + 3, 9 << 20])
def test_a_frame_goes_over_unchanged(size: int) -> None:
    content = os.urandom(size)

    async def scenario() -> None:
        async with node(content) as (source, address), node() as (newcomer, _):
            begun: list[bool] = []
            await source.peers.offer(2, 7, 0)
            done = await newcomer.peers.fetch(address, WISH, 1, lambda: begun.append(True))
            assert (done, begun) == (size, [True])
            assert newcomer.bytes_of(1, size) == content
            await asyncio.sleep(0.05)
            assert source.released == [(1, "b")]
            assert (source.peers.bytes_sent, newcomer.peers.bytes_received) == (size, size)

    run(scenario)


def test_a_request_waits_until_the_frame_is_there() -> None:
    async def scenario() -> None:
        async with node(b"late" * 2000) as (source, address), node() as (newcomer, _):
            fetch = asyncio.create_task(newcomer.peers.fetch(address, WISH, 0))
            await asyncio.sleep(0.1)
            assert not fetch.done()
            await source.peers.offer(2, 7, 0)
            assert await fetch == 8000

    run(scenario)


def test_two_nodes_fetch_at_once() -> None:
    content = os.urandom(3 << 20)

    async def scenario() -> None:
        async with node(content) as (source, address), node() as (one, _), node() as (two, _):
            await source.peers.offer(2, 7, 0)
            await asyncio.gather(
                one.peers.fetch(address, WISH, 0),
                two.peers.fetch(address, Fetch(node="c", generation=2, version=7, stored=False), 0),
            )
            assert one.bytes_of(0, len(content)) == two.bytes_of(0, len(content)) == content
            await asyncio.sleep(0.05)
            assert sorted(source.released) == [(1, "b"), (2, "c")] or len(source.released) == 2

    run(scenario)


def test_a_version_that_is_not_there_is_an_error_that_names_it() -> None:
    async def scenario() -> None:
        async with node(b"x", version=8) as (source, address), node() as (newcomer, _):
            with pytest.raises(TransferFailed, match="version 7 is not here for generation 2"):
                await newcomer.peers.fetch(address, WISH, 0)  # never offered
            await source.peers.offer(2, 7, 0)  # the frame has been filled again since
            with pytest.raises(TransferFailed, match="version 7 is not here"):
                await newcomer.peers.fetch(address, WISH, 0)
            stored = Fetch(node="b", generation=2, version=7, stored=True)
            with pytest.raises(TransferFailed, match="version 7 is not here"):
                await newcomer.peers.fetch(address, stored, 0)
            assert source.held == []

    run(scenario)


@pytest.mark.parametrize("announced", [4096, 1 << 20])
def test_a_source_that_hangs_up_halfway_leaves_no_sealed_frame(announced: int) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, module.ASKED)
        write_message(writer, Coming(frame_bytes=announced))
        writer.write(b"s" * (announced // 2))
        await writer.drain()
        await asyncio.sleep(0.2)

    async def scenario() -> None:
        async with liar(half) as address, node(b"old" * 2000) as (newcomer, _):
            with pytest.raises(TransferFailed):
                await newcomer.peers.fetch(address, WISH, 0)
            assert newcomer.bytes_of(0, 1) == b"\0", "the page with the seal is there though the rest is not"

    run(scenario)


def test_a_source_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.3)

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, module.ASKED)
        write_message(writer, Coming(frame_bytes=1 << 20))
        writer.write(b"s" * 5000)
        await asyncio.sleep(20)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    async def scenario() -> None:
        async with liar(stall) as stalling, liar(mute) as silent, node() as (newcomer, _):
            for address in (stalling, silent):
                with pytest.raises(TransferFailed, match="no answer in time"):
                    await newcomer.peers.fetch(address, WISH, 0)

    run(scenario)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "", "nonsense", "127.0.0.1:99999", "x" * 300 + ":80"])
def test_an_address_where_nobody_is_is_an_error_of_the_transfer_only(address: str) -> None:
    async def scenario() -> None:
        async with node() as (newcomer, _):
            with pytest.raises(TransferFailed):
                await newcomer.peers.fetch(address, WISH, 0)
            assert "b" in await newcomer.peers.probe({"b": address})

    run(scenario)


def test_an_answer_of_an_absurd_size_is_refused_before_any_memory_is_taken() -> None:
    async def boast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write_message(writer, Coming(frame_bytes=1 << 50))
        await reader.read()

    async def scenario() -> None:
        async with liar(boast) as address, node() as (newcomer, _):
            with pytest.raises(TransferFailed, match="no memory for snapshots"):
                await newcomer.peers.fetch(address, WISH, 0)
            assert newcomer.arenas.frame_bytes <= 4096

    run(scenario)


def test_a_slow_reader_gets_the_whole_frame_and_the_sender_does_not_buffer_it() -> None:
    content = os.urandom(64 << 20)

    async def scenario() -> None:
        async with node(content) as (source, address):
            await source.peers.offer(2, 7, 0)
            host, _, port = address.rpartition(":")
            reader, writer = await call(host, int(port), OURS, 5)
            write_message(writer, WISH)
            await asyncio.sleep(1.0)
            sent_unread = source.peers.bytes_sent
            assert sent_unread < 40 << 20, f"{sent_unread >> 20} MiB were sent to who reads nothing"
            coming = await read_message(reader, module.ANSWERED)
            assert coming == Coming(frame_bytes=len(content))
            assert await reader.readexactly(len(content)) == content
            writer.transport.abort()

    run(scenario)


def test_who_takes_the_last_bytes_late_gets_them_too() -> None:
    """The sender is done writing long before the reader is done reading."""
    content = os.urandom(24 << 20)

    async def scenario() -> None:
        async with node(content) as (source, address):
            await source.peers.offer(2, 7, 0)
            host, _, port = address.rpartition(":")
            reader, writer = await call(host, int(port), OURS, 5)
            write_message(writer, WISH)
            await read_message(reader, module.ANSWERED)
            await asyncio.sleep(0.3)
            found = bytearray()
            while len(found) < len(content):
                data = await reader.read(1 << 18)
                assert data, f"cut off after {len(found)} of {len(content)} bytes"
                found += data
                await asyncio.sleep(0.01)
            assert found == content
            writer.transport.abort()

    run(scenario)


def test_a_reader_that_stops_reading_is_given_up_and_the_frame_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.3)

    async def scenario() -> None:
        async with node(os.urandom(64 << 20)) as (source, address):
            await source.peers.offer(2, 7, 0)
            host, _, port = address.rpartition(":")
            _, writer = await call(host, int(port), OURS, 5)
            write_message(writer, WISH)
            async with asyncio.timeout(5):
                while not source.released:
                    await asyncio.sleep(0.02)
            assert source.refusals.counts["peer"] == 1
            writer.transport.abort()

    run(scenario)


def test_probing_says_who_is_there_and_why_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.5)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    async def scenario() -> None:
        async with node() as (asking, _), node() as (_, there), liar(mute) as silent:
            asked = {"there": there, "silent": silent, "gone": f"{HOST}:1"}
            found = await asking.peers.probe(asked)
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
        async with node(b"content") as (source, address), node() as (newcomer, _):
            host, _, port = address.rpartition(":")
            for piece in pieces:
                reader, writer = await call(host, int(port), OURS, 5)
                writer.write(piece)
                writer.write(LENGTH.pack(0xFFFFFFFF))
                await reader.read()
                writer.transport.abort()
            assert source.refusals.counts["peer"] == len(pieces)
            await source.peers.offer(2, 7, 0)
            assert await newcomer.peers.fetch(address, WISH, 0) == 7

    run(scenario)
