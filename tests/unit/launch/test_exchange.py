"""Frames that go from one agent's memory to another's, over real connections and the native engine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from frame_bytes import LEAST, frame_of
from hpresil import native
from hpresil.base.errors import NativeError, TransferFailed
from hpresil.launch import exchange as module, taking, ways
from hpresil.launch.exchange import Book, Exchange
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.taking import Taking
from hpresil.membership import tls
from hpresil.membership.door import Door, call
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ANSWERED, ASKED, Coming, Fetch, Holder
from hpresil.membership.refusals import Refusals
from hpresil.snapshot import preface, transfer
from hpresil.snapshot.preface import HEADER_BYTES

HOST = "127.0.0.1"
OURS = tls.from_secret(b"the secret of this job, 32 bytes")
KEY = b"the frames' key, also 32 bytes.."
WAIT_S = 1.0
WISH = Fetch(node="b", generation=2, version=7, stored=False)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        defects: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with asyncio.timeout(60):
            await scenario()
        assert defects == []

    asyncio.run(bounded())


class Node:
    """One agent's memory, door and engine; frame 0 holds ``content``."""

    def __init__(self, content: bytes, version: int, door: Path) -> None:
        self.arenas, self.refusals = Arenas(), Refusals()
        self.content, self.version = content, version
        self.held: list[int] = []
        self.released: list[tuple[int, str]] = []
        book = Book(
            lambda version: 0 if version == self.version else -1,
            self._hold,
            lambda held, node: self.released.append((held, node)),
        )
        self.exchange = Exchange(self.arenas, book, self.refusals, WAIT_S, host=HOST, socket=door)
        self.taking = Taking(self.arenas, self.exchange, WAIT_S)
        self.peers = Peers(OURS, self.refusals, self.exchange, self.taking, wait_s=WAIT_S)
        self.address = ""

    def _hold(self, frame: int, version: int) -> int:
        if version != self.version:
            return -1
        self.held.append(frame)
        return len(self.held)

    async def open(self, key: bytes) -> None:
        await self.arenas.grow(max(len(self.content), 1))
        os.pwrite(self.arenas.fds[0], self.content, 0)
        self.arenas.used[0] = len(self.content)
        self.exchange.open(key)
        self.address = await self.peers.open(HOST)

    async def fetch(self, source: str, frame: int, node: str = "b", *, stored: bool = False) -> int:
        wish = Fetch(node=node, generation=2, version=7, stored=stored)
        return await self.peers.fetch(source, wish, frame)

    def bytes_of(self, frame: int, size: int) -> bytes:
        return os.pread(self.arenas.fds[frame], size, 0)


@pytest.fixture(params=["memory", "network"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How nodes reach each other; over the network, each thinks that it is alone on its machine."""
    if request.param == "network":
        monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())
    return str(request.param)


Made = Callable[..., Awaitable[Node]]


@asynccontextmanager
async def nodes(directory: Path) -> AsyncIterator[Made]:
    """Give a function that makes nodes; all are closed in the end."""
    async with AsyncExitStack() as stack:
        made: list[Node] = []

        async def make(content: bytes = b"", version: int = 7, key: bytes = KEY) -> Node:
            one = Node(content, version, directory / f"frames-{len(made)}")
            stack.callback(one.arenas.close)
            stack.push_async_callback(one.peers.close)
            await one.open(key)
            made.append(one)
            return one

        yield make


@asynccontextmanager
async def liar(visit: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A member of the job that does not keep to the protocol."""
    door = Door(visit, OURS, Refusals())
    port = await door.open(HOST, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await door.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, (1 << 20) + 3, 9 << 20])
def test_a_frame_goes_over_unchanged(size: int, way: str, tmp_path: Path) -> None:
    content = frame_of(size)

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, newcomer = await make(content), await make()
            begun: list[bool] = []
            await source.exchange.ready(2, 7, 0)
            done = await newcomer.peers.fetch(source.address, WISH, 1, lambda: begun.append(True))
            assert (done, begun) == (size, [True])
            assert newcomer.bytes_of(1, size) == content
            await until(lambda: bool(source.released))
            assert source.released == [(1, "b")]
            over_the_network = size - HEADER_BYTES if way == "network" else 0
            assert (source.exchange.bytes_sent, newcomer.taking.bytes_received) == (over_the_network, size)

    run(scenario)


def test_what_the_first_page_vouches_for_is_there_whenever_it_is_sealed(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = frame_of(64 << 20)
    header = preface.parse_header(content[:HEADER_BYTES], len(content), native.crc32c)
    manifest = content[HEADER_BYTES : HEADER_BYTES + header.manifest_bytes]
    rows = msgspec.msgpack.decode(manifest, type=preface.Manifest).tensors

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, newcomer = await make(content), await make(frame_of(LEAST))
            seen: list[int] = []
            write = os.pwrite

            def watched(fd: int, data: bytes, offset: int) -> int:
                if offset == preface.SEAL_OFFSET and any(data):
                    there = preface.FIXED.unpack_from(newcomer.bytes_of(0, HEADER_BYTES))[-1]
                    end = rows[there - 1].offset + rows[there - 1].nbytes
                    assert newcomer.bytes_of(0, end)[HEADER_BYTES:] == content[HEADER_BYTES:end]
                    seen.append(there)
                elif offset == 0 and not any(data):
                    seen.append(0)
                return write(fd, data, offset)

            monkeypatch.setattr(os, "pwrite", watched)
            await source.exchange.ready(2, 7, 0)
            await newcomer.fetch(source.address, 0)
            assert seen == sorted(seen)
            assert (seen[0], seen[-1]) == (0, 16), "cleared first, whole in the end"
            assert way == "memory" or len(seen) > 2, "nobody could have read before everything was there"
            assert newcomer.bytes_of(0, len(content)) == content

    run(scenario)


def test_a_request_waits_until_the_frame_is_there(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, newcomer = await make(frame_of(20_000)), await make()
            fetch = asyncio.create_task(newcomer.fetch(source.address, 0))
            await asyncio.sleep(0.1)
            assert not fetch.done()
            await source.exchange.ready(2, 7, 0)
            assert await fetch == 20_000

    run(scenario)


def test_of_several_each_takes_from_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())
    content = frame_of(40 << 20)

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source = await make(content)
            takers = [await make() for _ in range(3)]
            fetches = [asyncio.create_task(t.fetch(source.address, 0, f"n{i}")) for i, t in enumerate(takers)]
            await asyncio.sleep(0.3)  # all ask before there is anything
            await source.exchange.ready(2, 7, 0)
            await asyncio.gather(*fetches)
            await asyncio.gather(*(taker.taking.pass_on(0) for taker in takers))
            for taker in takers:
                assert taker.bytes_of(0, len(content)) == content
            sent = source.exchange.bytes_sent
            passed_on = sum(taker.exchange.bytes_sent for taker in takers)
            assert sent + passed_on >= 3 * (len(content) - HEADER_BYTES)
            assert sent < 2 * len(content), "the source sent it to more than one"
            await until(lambda: len(source.released) == 3)
            assert {node for _, node in source.released} == {"n0", "n1", "n2"}

    run(scenario)


def test_one_that_passes_on_and_is_gone_is_gone_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())
    content = frame_of(64 << 20)

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, hop, last = await make(content), await make(), await make()
            await source.exchange.ready(2, 7, 0)
            first = asyncio.create_task(hop.fetch(source.address, 0, "hop"))
            await until(lambda: source.exchange.bytes_sent > 0)
            second = asyncio.create_task(last.fetch(source.address, 0, "last"))
            await asyncio.sleep(0.02)
            hop.exchange.close()
            first.cancel()
            assert await second == len(content)
            assert last.bytes_of(0, len(content)) == content
            await asyncio.gather(first, return_exceptions=True)

    run(scenario)


def test_a_version_that_is_not_there_is_an_error_that_names_it(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, newcomer = await make(frame_of(20_000, version=8), version=8), await make()
            with pytest.raises(TransferFailed, match="version 7 is not here for generation 2"):
                await newcomer.fetch(source.address, 0)  # never offered
            await source.exchange.ready(2, 7, 0)  # the frame has been filled again since
            with pytest.raises(TransferFailed, match="version 7 is not here"):
                await newcomer.fetch(source.address, 0)
            with pytest.raises(TransferFailed, match="version 7 is not here"):
                await newcomer.fetch(source.address, 0, stored=True)
            assert source.held == []

    run(scenario)


def test_who_does_not_know_the_key_gets_nothing_and_is_counted(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, stranger = await make(frame_of(9 << 20)), await make(frame_of(20_000), key=b"?" * 32)
            await source.exchange.ready(2, 7, 0)
            watching = asyncio.create_task(source.exchange.watch())
            with pytest.raises(TransferFailed):
                await stranger.fetch(source.address, 0)
            assert stranger.bytes_of(0, HEADER_BYTES) == bytes(HEADER_BYTES), "what is not whole is not valid"
            await until(lambda: any(kind.startswith("transfer") for kind in source.refusals.counts))
            assert source.exchange.bytes_sent == 0
            watching.cancel()

    run(scenario)


@pytest.mark.parametrize(
    "coming",
    [
        Coming(frame_bytes=4096, head=bytes(4096)),
        Coming(frame_bytes=8192, head=b"short"),
        Coming(frame_bytes=8192, head=bytes(4096)),
        Coming(frame_bytes=1 << 50, head=bytes(4096)),
    ],
    ids=["nothing but a head", "a short head", "nobody has it", "an absurd size"],
)
def test_an_answer_that_makes_no_sense_is_a_failed_transfer(coming: Coming, tmp_path: Path) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, ASKED)
        write_message(writer, coming)
        await reader.read()

    async def scenario() -> None:
        async with nodes(tmp_path) as make, liar(lie) as address:
            newcomer = await make()
            with pytest.raises(TransferFailed):
                await newcomer.fetch(address, 0)
            assert newcomer.arenas.frame_bytes <= 8192

    run(scenario)


def test_a_source_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpresil.launch.peers.STALL_S", 0.3)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(20)

    async def scenario() -> None:
        async with nodes(tmp_path) as make, liar(mute) as silent:
            newcomer = await make()
            with pytest.raises(TransferFailed, match="no answer in time"):
                await newcomer.fetch(silent, 0)

    run(scenario)


def test_the_frame_of_who_asked_and_fell_silent_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.3)

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source = await make(frame_of(1 << 20))
            await source.exchange.ready(2, 7, 0)
            host, _, port = source.address.rpartition(":")
            reader, writer = await call(host, int(port), OURS, 5)
            write_message(writer, WISH)
            coming = await read_message(reader, ANSWERED)
            assert isinstance(coming, Coming)
            assert coming.frame_bytes == 1 << 20
            assert (source.held, source.released) == ([0], [])
            await until(lambda: bool(source.released))
            assert source.refusals.counts["peer"] == 1
            writer.transport.abort()

    run(scenario)


def test_a_source_that_is_gone_and_from_which_nothing_comes_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "GRACE_S", 0.2)
    content = frame_of(1 << 20)

    silent = socket.create_server((HOST, 0))
    holder = Holder(host=HOST, port=silent.getsockname()[1])

    async def scenario() -> None:
        async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_message(reader, ASKED)
            coming = Coming(frame_bytes=len(content), head=content[:HEADER_BYTES], holders=(holder,))
            write_message(writer, coming)
            await writer.drain()
            writer.close()

        async with nodes(tmp_path) as make, liar(hangs_up) as address:
            newcomer = await make(frame_of(1 << 20))
            with pytest.raises(TransferFailed, match="the source is gone"):
                await newcomer.fetch(address, 0)
            assert newcomer.bytes_of(0, HEADER_BYTES) == bytes(HEADER_BYTES)

    with silent:
        run(scenario)


def test_who_takes_on_a_frame_that_will_not_be_whole_is_cut_off_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())
    monkeypatch.setattr(taking, "GRACE_S", 0.1)
    content = frame_of(1 << 20)
    silent = socket.create_server((HOST, 0))
    holder = Holder(host=HOST, port=silent.getsockname()[1])

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            hop = await make()
            engine = hop.exchange.engine
            assert engine is not None

            async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await read_message(reader, ASKED)
                coming = Coming(frame_bytes=len(content), head=content[:HEADER_BYTES], holders=(holder,))
                write_message(writer, coming)
                await until(lambda: engine.counters()["clients"] > 0)
                writer.close()

            async with liar(hangs_up) as address:
                bringing = asyncio.create_task(hop.fetch(address, 0))
                target = Arenas()
                await target.grow(len(content))
                source = transfer.Source("hop", (transfer.Route(HOST, hop.exchange.here.port),))
                taker = transfer.Fetch(
                    KEY, module.JOB, 2, 7, target.fds[0], len(content) - HEADER_BYTES, [source],
                    begin=HEADER_BYTES, settings=transfer.FetchSettings(appear_s=5.0),
                )  # fmt: skip
                with pytest.raises(TransferFailed, match="the source is gone"):
                    await bringing
                assert engine.counters()["clients"] == 0, "somebody still takes what is no frame"
                assert (await taker.ended()).state == "failed"
                target.close()

    with silent:
        run(scenario)


def test_a_frame_that_cannot_be_offered_is_an_answer_and_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_memory(frame: int) -> native.Mapping:
        raise NativeError("mapping 8192 bytes: Cannot allocate memory")

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source, newcomer = await make(frame_of(LEAST)), await make()
            await source.exchange.ready(2, 7, 0)
            monkeypatch.setattr(source.arenas, "mapping", no_memory)
            with pytest.raises(TransferFailed, match=r"cannot be offered: .*Cannot allocate memory"):
                await newcomer.fetch(source.address, 0)
            await until(lambda: bool(source.released))

    run(scenario)


def test_probing_says_that_frames_cannot_be_taken_though_the_agent_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            asking, there, other = await make(), await make(), await make(key=b"?" * 32)
            shut = await make()
            shut.exchange.close()
            found = await asking.peers.probe(
                {"there": there.address, "other": other.address, "shut": shut.address}
            )
            assert list(found) == ["other", "shut"]
            assert "(frames)" in found["shut"]

    run(scenario)
