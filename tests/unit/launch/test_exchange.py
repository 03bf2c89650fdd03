"""Frames that go from one agent's memory to another's, over real connections and the native engine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from frame_agents import HOST, OURS, WISH, nodes, run, until
from frame_bytes import LEAST, frame_of
from hpresil import native
from hpresil.launch import taking, ways
from hpresil.membership.door import call
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ANSWERED, Coming, Fetch, Holder
from hpresil.snapshot import preface
from hpresil.snapshot.preface import HEADER_BYTES


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
            asked, give = [], source.exchange.give

            async def asked_first(wish: Fetch, *streams: Any) -> None:
                asked.append(wish.node)
                await give(wish, *streams)

            monkeypatch.setattr(source.exchange, "give", asked_first)
            monkeypatch.setattr(
                taking, "APPEAR_S", 20.0
            )  # each finds the one before, however busy the machine is
            takers = [await make() for _ in range(3)]
            fetches = [asyncio.create_task(t.fetch(source.address, 0, f"n{i}")) for i, t in enumerate(takers)]
            await until(lambda: len(asked) == 3)  # before there is anything
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


def test_who_comes_again_is_not_sent_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())

    async def answer(address: str, here: Holder) -> tuple[Coming, asyncio.StreamWriter]:
        host, _, port = address.rpartition(":")
        reader, writer = await call(host, int(port), OURS, 5)
        write_message(writer, Fetch(node="n", generation=2, version=7, stored=False, holder=here))
        coming = await read_message(reader, ANSWERED)
        assert isinstance(coming, Coming)
        return coming, writer

    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source = await make(frame_of(20_000))
            await source.exchange.ready(2, 7, 0)
            one, other = (Holder(host=HOST, port=port) for port in (1, 2))
            asking = [await answer(source.address, here) for here in (other, one, one)]
            ways_told = [coming.holders[:-1] for coming, _ in asking]
            assert ways_told == [(), (other,), (other,)]
            assert all(coming.holders[-1] == source.exchange.here for coming, _ in asking)
            for _, writer in asking:
                writer.transport.abort()
            await until(lambda: len(source.released) == 3)

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
