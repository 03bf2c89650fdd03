"""Frames on sockets: for asyncio streams (agent, coordinator) and for blocking sockets (worker).

A frame is a 4-byte big-endian length and one MessagePack map (see `messages`). Whatever arrives is
checked before it is used: the length against a limit before anything is read or allocated, the body
against the schema of the direction it travels in. Nothing is unpickled.

Errors: `TransferFailed` for a frame that is cut off, too long, or not a message of this direction;
after it the stream has no frame boundary any more, so the connection must be closed. Python's own
`ConnectionError` if the peer closed in the middle of an operation.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from typing import Generic, TypeVar

import msgspec

from hpresil.base.deadline import Deadline
from hpresil.base.errors import DeadlineExceeded, TransferFailed
from hpresil.membership.messages import (
    LENGTH,
    MAX_FRAME_BYTES,
    FromAgent,
    FromWorker,
    Message,
    ToAgent,
    ToWorker,
    encode,
)

M = TypeVar("M")
READ_BYTES = 1 << 16


class Direction(Generic[M]):
    """The messages that may travel one way on a connection.

    Args:
        name: For error messages, as "worker to agent".
        union: The message types.
        max_bytes: The longest body accepted.
    """

    def __init__(self, name: str, union: object, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)

    def length(self, header: bytes | bytearray | memoryview) -> int:
        """Return the length of the body that follows ``header``. Raises TransferFailed."""
        (length,) = LENGTH.unpack(header)
        if not 0 < length <= self.max_bytes:
            raise TransferFailed(
                f"frame of {length} bytes ({self.name}); a frame has 1 to {self.max_bytes} bytes"
            )
        return int(length)

    def decode(self, body: bytes | bytearray | memoryview) -> M:
        """Return the message in ``body``. Raises TransferFailed if it is none of this direction."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TransferFailed(
                f"frame of {len(body)} bytes is no message ({self.name}): {error}"
            ) from error


FROM_WORKER: Direction[FromWorker] = Direction("worker to agent", FromWorker)
TO_WORKER: Direction[ToWorker] = Direction("agent to worker", ToWorker)
FROM_AGENT: Direction[FromAgent] = Direction("agent to coordinator", FromAgent)
TO_AGENT: Direction[ToAgent] = Direction("coordinator to agent", ToAgent)


async def read_message(reader: asyncio.StreamReader, direction: Direction[M]) -> M | None:
    """Return the next message, None at a clean end of the stream.

    The caller bounds the wait where one is needed (`asyncio.timeout`); a cancelled read loses its
    place in the stream, so close the connection after it.

    Raises:
        TransferFailed: The frame is cut off, too long, or no message of ``direction``.
        ConnectionError: The connection broke.
    """
    try:
        header = await reader.readexactly(LENGTH.size)
        body = await reader.readexactly(direction.length(header))
    except asyncio.IncompleteReadError as error:
        if not error.partial and error.expected == LENGTH.size:
            return None
        raise TransferFailed(
            f"the stream ({direction.name}) ended after {len(error.partial)} of {error.expected} bytes"
        ) from None
    return direction.decode(body)


def close_once(writer: asyncio.StreamWriter) -> None:
    """Close a connection when what was written has gone out; nothing if it is closed or aborted already.

    Python 3.11.2 (Debian 12) forgets what a TLS transport belongs to when it is closed a second time, and
    then every later call on it fails, `abort` too.
    """
    if not writer.is_closing():
        writer.close()


def write_message(writer: asyncio.StreamWriter, message: Message) -> None:
    """Queue ``message`` for sending; does not wait."""
    writer.write(encode(message))


class FrameChannel(Generic[M]):
    """Messages over a connected stream socket, for threads.

    Thread safety: any number of threads may call `send`; one thread at a time may call `receive`,
    at the same time as others send. `close` may be called from any thread and makes both fail.

    Args:
        sock: A connected socket; the channel owns it and makes it non-blocking.
        incoming: What the peer may say.
        send_timeout_s: How long `send` may wait for room in the socket's buffer.
    """

    def __init__(self, sock: socket.socket, incoming: Direction[M], *, send_timeout_s: float = 30.0) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._incoming = incoming
        self._send_timeout_s = send_timeout_s
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._buffer = bytearray()
        self._closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 after `close`."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Send one message, whole.

        Raises:
            DeadlineExceeded: The peer does not read; the channel cannot be used for sending any more.
            ConnectionError: The peer or `close` closed the connection.
        """
        left = memoryview(encode(message))
        deadline = Deadline(self._send_timeout_s, f"sending {type(message).__name__} of {len(left)} bytes")
        with self._sending:
            while left:
                self._check_open()
                try:
                    left = left[self._sock.send(left, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    deadline.check()
                    self._poll(select.POLLOUT, deadline.remaining())
                except OSError as error:
                    raise self._broken(error) from error

    def receive(self, timeout_s: float) -> M | None:
        """Return the next message, or None if none is complete within ``timeout_s`` seconds.

        What arrived of an incomplete frame is kept for the next call.

        Raises:
            TransferFailed: The frame is too long or no message of this direction.
            ConnectionError: The peer or `close` closed the connection.
        """
        deadline = Deadline(timeout_s, "a message")
        with self._receiving:
            while True:
                message = self._take()
                if message is not None:
                    return message
                self._check_open()
                try:
                    data = self._sock.recv(READ_BYTES)
                except BlockingIOError:
                    if deadline.expired():
                        return None
                    self._poll(select.POLLIN, deadline.remaining())
                    continue
                except OSError as error:
                    raise self._broken(error) from error
                if not data:
                    raise ConnectionResetError(f"the peer closed the connection ({self._incoming.name})")
                self._buffer += data

    def expect(self, timeout_s: float, what: str) -> M:
        """Return the next message. Raises DeadlineExceeded naming ``what`` after ``timeout_s``."""
        message = self.receive(timeout_s)
        if message is None:
            raise DeadlineExceeded(f"{what} did not arrive within {timeout_s:g} s")
        return message

    def close(self) -> None:
        """Close the connection; waiting calls of other threads fail with ConnectionError."""
        self._closed = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes threads that poll
        except OSError:
            pass  # the peer was faster, or it is closed already
        with self._sending, self._receiving:
            self._sock.close()

    def _take(self) -> M | None:
        size = LENGTH.size
        if len(self._buffer) < size:
            return None
        end = size + self._incoming.length(self._buffer[:size])
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[size:end])
        del self._buffer[:end]
        return self._incoming.decode(body)

    def _poll(self, events: int, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._sock, events)
        poll.poll(timeout_s * 1e3)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionAbortedError("the channel is closed")

    def _broken(self, error: OSError) -> ConnectionError:
        if isinstance(error, ConnectionError):
            return error
        return ConnectionAbortedError(f"the channel broke: {error}")


class BlockingChannel(FrameChannel[ToWorker]):
    """The worker's end of the connection to its agent."""

    def __init__(self, sock: socket.socket, *, send_timeout_s: float = 30.0) -> None:
        super().__init__(sock, TO_WORKER, send_timeout_s=send_timeout_s)
