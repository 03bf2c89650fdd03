"""Frames on asyncio streams and on blocking sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import msgspec
import pytest

from hpresil.base.errors import DeadlineExceeded, TransferFailed
from hpresil.membership import messages as m
from hpresil.membership.framing import (
    FROM_AGENT,
    FROM_WORKER,
    TO_WORKER,
    BlockingChannel,
    Direction,
    read_message,
)

VIEW = m.View(generation=3, members=[1, 2])


def frame(content: object) -> bytes:
    body = msgspec.msgpack.encode(content)
    return struct.pack(">I", len(body)) + body


INVALID = {
    "an empty frame": struct.pack(">I", 0),
    "a frame above the limit": struct.pack(">I", m.MAX_FRAME_BYTES + 1),
    "a frame that is no map": struct.pack(">I", 3) + b"abc",
    "a message of the other direction": m.encode(m.Ready(facts={})),
    "a message with a field of the wrong type": frame({"type": "View", "generation": "x", "members": []}),
    "a message with an unknown field": frame({"type": "Drain", "x": 1}),
    "a message of an unknown type": frame({"type": "Resign"}),
    "nested beyond all measure": struct.pack(">I", 100_000) + b"\x91" * 100_000,
}


@pytest.fixture
def pair() -> Iterator[tuple[BlockingChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = BlockingChannel(ours, send_timeout_s=5)
    with theirs:
        yield channel, theirs
        channel.close()


def test_a_message_arrives_in_any_pieces(pair: tuple[BlockingChannel, socket.socket]) -> None:
    channel, peer = pair
    for byte in m.encode(VIEW):
        assert channel.receive(0) is None
        peer.sendall(bytes([byte]))
    assert channel.receive(5) == VIEW


def test_several_messages_in_one_piece_arrive_one_by_one(pair: tuple[BlockingChannel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(m.encode(VIEW) + m.encode(m.Drain()) + m.encode(VIEW)[:5])
    assert [channel.receive(5), channel.receive(5), channel.receive(0.01)] == [VIEW, m.Drain(), None]


def test_what_does_not_arrive_in_time_is_named(pair: tuple[BlockingChannel, socket.socket]) -> None:
    with pytest.raises(DeadlineExceeded, match=r"the first view did not arrive within 0\.01 s"):
        pair[0].expect(0.01, "the first view")


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_frame_is_refused(pair: tuple[BlockingChannel, socket.socket], what: str) -> None:
    channel, peer = pair
    peer.settimeout(5)
    sender = threading.Thread(target=peer.sendall, args=(INVALID[what],))
    sender.start()
    with pytest.raises(TransferFailed, match="agent to worker"):
        while channel.receive(5) is None:
            pass
    sender.join(5)
    assert not sender.is_alive()


def test_a_closed_peer_ends_receiving_and_sending(pair: tuple[BlockingChannel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(m.encode(VIEW) + b"\x00")
    peer.close()
    assert channel.receive(5) == VIEW
    with pytest.raises(ConnectionError):
        channel.receive(5)
    with pytest.raises(ConnectionError):
        channel.send(m.Drain())


def test_closing_wakes_the_thread_that_receives(pair: tuple[BlockingChannel, socket.socket]) -> None:
    channel, _ = pair
    seen: list[BaseException] = []
    inside = threading.Event()

    def receive() -> None:
        inside.set()
        try:
            channel.receive(60)
        except ConnectionError as error:
            seen.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    assert inside.wait(5)
    channel.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen) == 1
    with pytest.raises(ConnectionError):
        channel.send(m.Drain())
    channel.close()


def test_many_threads_send_whole_messages(pair: tuple[BlockingChannel, socket.socket]) -> None:
    channel, peer = pair
    said = [m.Logged(step=step, values={"x": "y" * 3000}) for step in range(200)]
    threads = [
        threading.Thread(target=lambda part=said[n::4]: [channel.send(x) for x in part]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    data = bytearray()
    peer.settimeout(5)
    total = sum(len(m.encode(x)) for x in said)
    while len(data) < total:
        data += peer.recv(1 << 16)
    for thread in threads:
        thread.join(5)
    found = []
    while data:
        end = 4 + FROM_WORKER.length(data[:4])
        found.append(FROM_WORKER.decode(bytes(data[4:end])))
        del data[:end]
    assert sorted(x.step for x in found if isinstance(x, m.Logged)) == list(range(200))


def test_a_peer_that_does_not_read_is_not_waited_for_forever() -> None:
    ours, theirs = socket.socketpair()
    channel = BlockingChannel(ours, send_timeout_s=0.05)
    with theirs, pytest.raises(DeadlineExceeded, match="sending Logged"):
        for step in range(1000):
            channel.send(m.Logged(step=step, values={"x": "y" * 100_000}))
    channel.close()


@pytest.mark.parametrize("what", INVALID)
def test_a_stream_refuses_the_same(what: str) -> None:
    async def read() -> m.ToWorker | None:
        reader = asyncio.StreamReader()
        reader.feed_data(INVALID[what])
        reader.feed_eof()
        return await read_message(reader, TO_WORKER)

    with pytest.raises(TransferFailed):
        asyncio.run(read())


def test_a_stream_may_end_between_frames_only() -> None:
    async def read(data: bytes) -> list[m.FromAgent | None]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return [await read_message(reader, FROM_AGENT), await read_message(reader, FROM_AGENT)]

    joined = m.AgentJoined(node="n", pid=1)
    frame = m.encode(joined)
    assert asyncio.run(read(frame)) == [joined, None]
    for cut in range(1, len(frame)):
        with pytest.raises(TransferFailed, match="ended after"):
            asyncio.run(read(frame + frame[:cut]))


def test_a_message_above_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        m.encode(m.Logged(step=1, values={"x": "y" * m.MAX_FRAME_BYTES}))


def test_a_direction_can_have_a_limit_of_its_own() -> None:
    small: Direction[m.FromWorker] = Direction("small", m.FromWorker, max_bytes=10)
    with pytest.raises(TransferFailed, match="1 to 10 bytes"):
        small.length(struct.pack(">I", 11))
