"""Frames that do not arrive: no version, no key, no sense, no answer; nothing is left held or half taken."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from frame_agents import HOST, KEY, OURS, SHORT_S, WISH, liar, nodes, run, until
from frame_bytes import LEAST, frame_of
from hpresil import native
from hpresil.base.errors import NativeError, TransferFailed
from hpresil.launch import exchange as module, taking, ways
from hpresil.launch.memory import Arenas
from hpresil.membership.door import call
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ANSWERED, ASKED, Coming, Holder
from hpresil.snapshot import transfer
from hpresil.snapshot.preface import HEADER_BYTES


def test_a_version_that_is_not_there_is_an_error_that_names_it(way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(tmp_path) as make:
            source = await make(frame_of(20_000, version=8), version=8, wait_s=SHORT_S)
            newcomer = await make()
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
            source = await make(frame_of(9 << 20))
            stranger = await make(frame_of(20_000), key=b"?" * 32, wait_s=SHORT_S)
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
            newcomer = await make(wait_s=SHORT_S)
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
                    begin=HEADER_BYTES, settings=transfer.FetchSettings(appear_s=20.0),
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
