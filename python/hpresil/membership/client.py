"""The agent's side of the connection to the coordinator, which may be another one after a while.

What the agent says goes out in order, what it is told comes in as an async iterator. In a job of several
nodes every message is kept until the coordinator says `Heard`: its copies of the state hold it then. A new
coordinator begins from such a copy, and is told the rest again when the agent joins it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from hpresil.base.deadline import Deadline, now
from hpresil.base.errors import TransferFailed
from hpresil.membership.agent_messages import AgentJoined, Alive
from hpresil.membership.framing import TO_AGENT, close_once, read_message, write_message
from hpresil.membership.messages import FromAgent, ToAgent

log = logging.getLogger(__name__)

RETRY_S = 0.02
ALIVE_S = 1.0
COORDINATOR_SILENCE_S = 8.0
"""Longer than the coordinator waits for an agent (`connections.SILENCE_S`): when two nodes do not hear each
other, the one in office stops first, and then another takes over."""
MAX_UNHEARD = 1 << 16
CLOSE_S = 1.0


class Client:
    """A connection to the coordinator of the moment.

    Single-threaded: to be used from one event loop.

    Args:
        keeps: Keep what is said until it was heard, and expect a sign of life every few seconds.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self.keeps = keeps
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._joined = False
        self._unheard: deque[FromAgent] = deque()
        self._heard = 0

    async def connect(self, path: Path, timeout_s: float = 10.0) -> None:
        """Connect to the coordinator's socket on this node, which may not exist yet.

        Raises:
            DeadlineExceeded: Nobody listened there within ``timeout_s`` seconds.
        """
        deadline = Deadline(timeout_s, f"a connection to the coordinator at {path}")
        while True:
            try:
                async with asyncio.timeout(max(deadline.remaining(), RETRY_S)):
                    streams = await asyncio.open_unix_connection(str(path))
                return self.connected(*streams)
            except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
                deadline.check()
                await asyncio.sleep(RETRY_S)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use this connection from now on, and drop the one before."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader, self._writer, self._joined = reader, writer, False

    @property
    def peer(self) -> str:
        """HOST:PORT of the coordinator."""
        assert self._writer is not None
        host, port = self._writer.get_extra_info("peername")[:2]
        return f"{host}:{port}"

    def join(self, joined: AgentJoined) -> None:
        """Introduce the agent, and say again what no coordinator has heard for sure."""
        self._joined = True
        self._write(msgspec.structs.replace(joined, said=self._heard))
        if self.keeps:
            self._write(Alive(at=now()))
        for message in self._unheard:
            self._write(message)
        if not self.keeps:
            self._forget(len(self._unheard))

    def keep_nothing(self) -> None:
        """The coordinator lives in this process: what it was told cannot be lost without this agent."""
        self.keeps = False
        self._forget(len(self._unheard))

    async def stay(self) -> None:
        """Say `Alive` every second, until cancelled."""
        while True:
            self._write(Alive(at=now()))
            await asyncio.sleep(ALIVE_S)

    def say(self, message: FromAgent) -> None:
        """Queue ``message`` without waiting; keeps the order of all messages."""
        if self.keeps or not self._joined:
            if len(self._unheard) >= MAX_UNHEARD:
                log.warning(
                    "no coordinator for so long that %s is forgotten", type(self._unheard[0]).__name__
                )
                self._forget(1)
            self._unheard.append(message)
        self._write(message)

    def _write(self, message: FromAgent) -> None:
        if self._joined and self._writer is not None and not self._writer.is_closing():
            write_message(self._writer, message)

    def heard(self, said: int) -> None:
        """Forget the first ``said`` messages: the coordinator has them for sure."""
        self._forget(min(said - self._heard, len(self._unheard)))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._unheard.popleft()
            self._heard += 1

    async def __aiter__(self) -> AsyncIterator[ToAgent]:
        """Yield what the coordinator says until it closes the connection.

        Raises:
            TransferFailed: It says what is no message, or nothing for too long.
            OSError: The connection broke.
        """
        while (message := await self._next()) is not None:
            yield message
        self.leave()

    async def _next(self) -> ToAgent | None:
        assert self._reader is not None
        try:
            async with asyncio.timeout(COORDINATOR_SILENCE_S if self.keeps else None):
                return await read_message(self._reader, TO_AGENT)
        except TimeoutError:
            self.leave()
            raise TransferFailed(f"it has said nothing for {COORDINATOR_SILENCE_S:g} s") from None
        except (OSError, TransferFailed):
            self.leave()
            raise

    def leave(self) -> None:
        """Cut the connection; what is said from now on is kept for the next coordinator."""
        self._joined = False
        if self._writer is not None:
            self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection once everything that was said has gone out, within a second."""
        if self._writer is None:
            return
        close_once(self._writer)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()
