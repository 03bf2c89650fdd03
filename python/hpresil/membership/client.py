"""The agent's side of the connection to the coordinator.

One connection; what the agent says goes out in order, what it is told comes in as an async
iterator. There is no reconnecting: an agent whose connection broke is lost to the coordinator, with all
its workers, and comes back as a new one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from hpresil.base.deadline import Deadline, now
from hpresil.base.errors import DeadlineExceeded
from hpresil.membership.door import call
from hpresil.membership.framing import TO_AGENT, read_message, write_message
from hpresil.membership.messages import Alive, FromAgent, ToAgent
from hpresil.membership.tls import Credentials

RETRY_S = 0.02
ALIVE_S = 1.0


class Client:
    """A connection to the coordinator; make one with `Client.connect`.

    Single-threaded: to be used from one event loop.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send_timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._send_timeout_s = send_timeout_s

    @classmethod
    async def connect(cls, path: Path, timeout_s: float = 10.0, send_timeout_s: float = 30.0) -> Client:
        """Connect to the coordinator's socket, which may not exist yet.

        Raises:
            DeadlineExceeded: Nobody listened there within ``timeout_s`` seconds.
        """
        deadline = Deadline(timeout_s, f"a connection to the coordinator at {path}")
        while True:
            try:
                async with asyncio.timeout(max(deadline.remaining(), RETRY_S)):
                    reader, writer = await asyncio.open_unix_connection(str(path))
                return cls(reader, writer, send_timeout_s)
            except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
                deadline.check()
                await asyncio.sleep(RETRY_S)

    @classmethod
    async def call(
        cls,
        host: str,
        port: int,
        credentials: Credentials,
        timeout_s: float,
        send_timeout_s: float = 30.0,
    ) -> Client:
        """Connect to the coordinator on another node, which may not be up yet.

        Raises:
            DeadlineExceeded: Nobody listened there within ``timeout_s`` seconds.
            ConfigError: Whoever listens there does not belong to the job.
        """
        deadline = Deadline(timeout_s, f"a connection to the coordinator at {host}:{port}")
        why = ""
        while not deadline.expired():
            try:
                reader, writer = await call(host, port, credentials, max(deadline.remaining(), RETRY_S))
                return cls(reader, writer, send_timeout_s)
            except (OSError, TimeoutError) as error:
                why = os.strerror(error.errno) if error.errno else why or "no answer"
                await asyncio.sleep(RETRY_S)
        raise DeadlineExceeded(
            f"no coordinator answered at {host}:{port} within {timeout_s:g} s ({why}): start the first node, "
            f"check --coordinator, and let port {port} through the firewalls between the two"
        )

    async def stay(self) -> None:
        """Say `Alive` every second, until cancelled."""
        while True:
            self.say(Alive(at=now()))
            await asyncio.sleep(ALIVE_S)

    def say(self, message: FromAgent) -> None:
        """Queue ``message`` without waiting; keeps the order of all messages."""
        write_message(self._writer, message)

    async def send(self, message: FromAgent) -> None:
        """Send ``message``, waiting while the coordinator is slow.

        Raises:
            DeadlineExceeded: It does not read any more.
            ConnectionError: The connection is closed.
        """
        write_message(self._writer, message)
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._writer.drain()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the coordinator did not take {type(message).__name__} within {self._send_timeout_s:g} s"
            ) from None

    async def __aiter__(self) -> AsyncIterator[ToAgent]:
        """Yield what the coordinator says until it closes the connection."""
        while (message := await read_message(self._reader, TO_AGENT)) is not None:
            yield message

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()
