"""What does not belong to the job is refused and counted at a transfer server's door, at little cost."""

from __future__ import annotations

import logging
import os
import random
import socket
import struct
import time
from pathlib import Path

import pytest

from hpresil.membership.refusals import Refusals
from hpresil.snapshot.transfer import FrameServer
from transfer_case import CHUNK, GENERATION, VERSION, MemoryFrame, content, fetch, serving, source

MAGIC = b"HPRSTFR1"
HELLO = MAGIC + struct.pack("<QQIIII", GENERATION, VERSION, CHUNK, 0, 2, 0) + bytes(32)


def call(server: FrameServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def closed(sock: socket.socket) -> bool:
    """Whether the server hangs up without saying more than a challenge."""
    said = b""
    try:
        while data := sock.recv(4096):
            said += data
    except ConnectionError:
        pass
    return len(said) in (0, 40)


def until_counted(server: FrameServer, reason: str, count: int = 1) -> None:
    end = time.monotonic() + 10
    while server.refused().get(reason, 0) < count:
        assert time.monotonic() < end, server.refused()
        time.sleep(0.005)


def still_serves(server: FrameServer, have: MemoryFrame) -> None:
    want = MemoryFrame(have.nbytes)
    running = fetch(want, source(server.port))
    assert running.wait(30)
    running.outcome().check()
    assert want.bytes() == have.bytes()


@pytest.fixture
def have() -> MemoryFrame:
    return MemoryFrame(100_000, content(100_000, 1))


def changed(place: int, value: bytes) -> bytes:
    return HELLO[:place] + value + HELLO[place + len(value) :]


@pytest.mark.parametrize(
    "hello",
    [
        bytes(72),
        b"GET / HTTP/1.1\r\nHost: transfer.example\r\nUser-Agent: something\r\nAccept: */*\r\n\r\n",
        changed(0, b"X"),
        changed(24, struct.pack("<I", 0)),
        changed(24, struct.pack("<I", 1 << 31)),
        changed(28, struct.pack("<I", 0xFFFFFFFF)),
        changed(32, struct.pack("<I", 9)),
        changed(36, struct.pack("<I", 1)),
    ],
    ids=["zeros", "http", "magic", "no chunk", "huge chunk", "endless wait", "purpose", "reserved"],
)
def test_a_malformed_hello_is_refused(have: MemoryFrame, hello: bytes) -> None:
    with serving(have) as server:
        with call(server) as stranger:
            stranger.sendall(hello)
            assert closed(stranger)
        until_counted(server, "malformed")
        still_serves(server, have)


def test_a_false_proof_is_refused(have: MemoryFrame) -> None:
    with serving(have) as server:
        with call(server) as stranger:
            stranger.sendall(HELLO)
            assert len(stranger.recv(40, socket.MSG_WAITALL)) == 40
            stranger.sendall(bytes(32))
            assert closed(stranger)
        until_counted(server, "wrong secret")
        assert server.counters()["sent_bytes"] == 0
        still_serves(server, have)


def test_a_truncated_hello_is_refused_and_a_silent_one_times_out(have: MemoryFrame) -> None:
    with serving(have, handshake_s=0.3) as server:
        with call(server) as stranger:
            stranger.sendall(HELLO[:50])
        until_counted(server, "left early")
        with call(server) as silent, call(server) as half:
            half.sendall(HELLO[:71])
            until_counted(server, "silent", 2)
            assert closed(silent)
            assert closed(half)
        still_serves(server, have)


def test_random_bytes_are_refused(have: MemoryFrame) -> None:
    chance = random.Random(5)
    with serving(have) as server:
        for _ in range(200):
            with call(server) as stranger:
                try:
                    stranger.sendall(chance.randbytes(chance.randrange(1, 5000)))
                except ConnectionError:
                    pass  # it hung up in the middle
        still_serves(server, have)
        until_counted(server, "malformed", 150)


def test_thousands_of_silent_connections_keep_nobody_out(have: MemoryFrame) -> None:
    with serving(have, most_waiting=64) as server:
        before = len(os.listdir("/proc/self/fd"))
        silent = []
        try:
            for _ in range(3000):
                stranger = call(server)
                silent.append(stranger)
                if len(silent) > 200:  # their own side closes late, the server's must not wait for that
                    silent.pop(0).close()
            still_serves(server, have)
            assert server.counters()["waiting"] <= 64
            assert len(os.listdir("/proc/self/fd")) < before + 200 + 64 + 30
        finally:
            for stranger in silent:
                stranger.close()
        refused = server.refused()
        assert refused.get("crowded out", 0) + refused.get("left early", 0) >= 2900


def test_a_reason_is_logged_once_and_counted_always(
    have: MemoryFrame, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = Refusals()
    with serving(have) as server, caplog.at_level(logging.WARNING):
        for round_ in range(1, 4):
            for _ in range(5):
                with call(server) as stranger:
                    stranger.sendall(bytes(72))
                    closed(stranger)
            until_counted(server, "malformed", 5 * round_)
            server.tell(refusals)
            server.tell(refusals)
    assert refusals.counts == {"transfer: malformed": 15}
    assert len([r for r in caplog.records if "malformed" in r.message]) == 1


def test_a_socket_of_this_machine_needs_the_secret_too(have: MemoryFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    with serving(have, unix_path=path) as server, socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(path)
        stranger.sendall(HELLO)
        stranger.recv(40, socket.MSG_WAITALL)
        stranger.sendall(bytes(32))
        assert closed(stranger)
        until_counted(server, "wrong secret")
        assert server.counters()["passed_descriptors"] == 0
