"""The port that lets in only those who belong to the job, and everything else that comes there."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import time

import pytest
from at_the_door import HOST, OURS, THEIRS, door, eventually, free_port, resident_bytes, run, throw
from hypothesis import given, settings, strategies as st

from hpresil.base.errors import ConfigError
from hpresil.membership import door as module, tls
from hpresil.membership.door import Door, call
from hpresil.membership.refusals import Refusals

MEMBER_S = 5.0


async def member_gets_in(port: int, credentials: tls.Credentials = OURS) -> float:
    """Go in, say a word, hear it back; return how long that took."""
    begin = time.monotonic()
    reader, writer = await call(HOST, port, credentials, MEMBER_S)
    try:
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    finally:
        writer.transport.abort()
    return time.monotonic() - begin


def test_who_has_the_secret_gets_in_and_hears_an_answer() -> None:
    async def scenario() -> None:
        async with door() as (port, refusals):
            await member_gets_in(port)
            assert not refusals.counts

    run(scenario)


def test_who_has_another_secret_is_told_so_and_the_door_counts_it() -> None:
    async def scenario() -> None:
        async with door() as (port, refusals):
            with pytest.raises(
                ConfigError, match=rf"{HOST}:{port} does not belong to this job.*HPRESIL_SECRET"
            ):
                await call(HOST, port, THEIRS, MEMBER_S)
            await eventually(lambda: refusals.counts["stranger"] == 1)
            await member_gets_in(port)

    run(scenario)


def test_whose_certificate_only_the_door_rejects_learns_that_too() -> None:
    """In TLS 1.3 the caller's part is over before its certificate is looked at."""
    believer = tls.Credentials(THEIRS.certificate, THEIRS.key, OURS.authority)

    async def scenario() -> None:
        visits = 0

        async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal visits
            visits += 1

        async with door(visit) as (port, refusals):
            with pytest.raises(ConfigError, match="does not take us for a part of this job"):
                await call(HOST, port, believer, MEMBER_S)
            assert refusals.counts["stranger"] >= 1
            assert visits == 0

    run(scenario)


def test_nobody_there_is_an_error_at_once() -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectionRefusedError):
            await call(HOST, free_port(), OURS, MEMBER_S)

    run(scenario)


def test_a_port_in_use_and_a_foreign_address_are_named() -> None:
    async def scenario() -> None:
        async with door() as (port, _):
            second = Door(lambda r, w: asyncio.sleep(0), OURS, Refusals())
            with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{port}: Address already in use"):
                await second.open(HOST, port)
            with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0"):
                await second.open("192.0.2.1", 0)
            await second.close()

    run(scenario)


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="x").do_handshake()
    return out.read()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x00\x00\x05abcde",
        b"\xff" * 70000,
        client_hello()[:-7],
        b"",
    ],
    ids=["http", "plain frame", "noise", "half a hello", "nothing"],
)
def test_what_is_no_handshake_is_turned_away_counted_and_logged_once(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with door() as (port, refusals):
            for count in range(1, 4):
                assert b"hello" not in await throw(port, garbage)
                await eventually(lambda wanted=count: refusals.counts["stranger"] == wanted)
            await member_gets_in(port)
            assert dict(refusals.counts) == {"stranger": 3}

    run(scenario)
    assert len([record for record in caplog.records if "refused" in record.message]) == 1


def test_silence_ends_after_the_time_for_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.2)

    async def scenario() -> None:
        async with door() as (port, refusals):
            for silent in (b"", client_hello(), client_hello()[:20]):
                begin = time.monotonic()
                await throw(port, silent, wait=False)
                assert time.monotonic() - begin < 3.0
            await eventually(lambda: refusals.counts["stranger"] == 3)

    run(scenario)


def test_an_older_tls_is_turned_away() -> None:
    old = OURS.client()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2

    async def scenario() -> None:
        async with door() as (port, refusals):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(HOST, port, ssl=old)
            await eventually(lambda: refusals.counts["stranger"] == 1)

    run(scenario)


def test_who_shows_no_certificate_gets_no_word_through() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    heard: list[bytes] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    async def scenario() -> None:
        async with door(visit) as (port, refusals):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                _, writer = await asyncio.open_connection(HOST, port, ssl=bare)
                writer.write(b"mischief")
                writer.transport.abort()
                raise ConnectionResetError
            await eventually(lambda: refusals.counts["stranger"] == 1)
            assert heard == []

    run(scenario)


def test_plain_text_before_the_handshake_never_reaches_the_visit() -> None:
    """Text injected ahead of the encrypted stream must not be taken for a member's."""
    heard: list[bytes] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    async def scenario() -> None:
        async with door(visit) as (port, refusals):
            for _ in range(50):
                await throw(port, b"\x00\x00\x00\x04evil" + client_hello())
            await eventually(lambda: refusals.counts["stranger"] == 50)
            assert heard == []

    run(scenario)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=600), min_size=1, max_size=8), st.booleans())
def test_whatever_bytes_come_the_door_stays_open(pieces: list[bytes], begin_like_tls: bool) -> None:
    hello = client_hello()

    async def scenario() -> None:
        async with door() as (port, refusals):
            for piece in pieces:
                await throw(port, hello[: 5 + len(piece) % 40] + piece if begin_like_tls else piece)
            await eventually(lambda: refusals.counts["stranger"] == len(pieces))
            await member_gets_in(port)

    run(scenario)


def test_closing_cuts_members_and_strangers_at_once() -> None:
    async def scenario() -> None:
        async with door() as (port, _):
            reader, writer = await call(HOST, port, OURS, MEMBER_S)
            stranger, line = await asyncio.open_connection(HOST, port)
            await asyncio.sleep(0.05)
        begin = time.monotonic()
        assert await reader.read() == b""
        assert await stranger.read() == b""
        assert time.monotonic() - begin < 10.0
        writer.transport.abort()
        line.transport.abort()
        assert len(asyncio.all_tasks()) == 1

    run(scenario)


def test_a_crowd_that_stays_within_the_limit_is_no_reason_to_turn_anybody_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 4)

    async def scenario() -> None:
        async with door() as (port, refusals):
            lines = [await asyncio.open_connection(HOST, port) for _ in range(4)]
            await asyncio.sleep(0.1)
            assert not refusals.counts
            await member_gets_in(port)
            assert refusals.counts["crowd"] == 1
            assert await lines[0][0].read() == b"", "not the one that came first was turned away"
            for _, line in lines:
                line.transport.abort()

    run(scenario)


def silent_connections(port: int, count: int) -> list[socket.socket]:
    """Begin ``count`` connections without waiting for any."""
    found = []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((HOST, port))
        found.append(sock)
    return found


def raise_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else soft


@pytest.mark.timeout(120)
def test_ten_thousand_silent_connections_cost_little_and_keep_no_member_out() -> None:
    count = min(10_000, raise_descriptor_limit() - 2000)

    async def scenario() -> None:
        async with door() as (port, refusals):
            await member_gets_in(port)
            before, slowest, crowd = resident_bytes(), 0.0, []
            try:
                while len(crowd) < count:
                    crowd += silent_connections(port, min(500, count - len(crowd)))
                    slowest = max(slowest, await member_gets_in(port))
                grown = resident_bytes() - before
                await eventually(lambda: refusals.counts["crowd"] >= count - 2 * module.BACKLOG, 30)
            finally:
                for sock in crowd:
                    sock.close()
        print(f"{count} silent connections: {grown >> 20} MiB more, slowest member {slowest:.2f} s")
        assert slowest < MEMBER_S
        assert grown < 128 << 20, f"{grown >> 20} MiB"

    run(scenario, 100)
