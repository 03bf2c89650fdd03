"""Agents among themselves: do we reach each other, who coordinates, frames from one memory to another.

One connection a request, through a `Door`, so both ends belong to the job and nobody can change a byte on
the way. A request is one framed message; the answer to `Fetch` is one framed `Coming` and then the frame's
bytes. What they mean is checked where it is used: a newcomer verifies the checksums of every section.

    source's node: Serve → sealed → offer()  ──bytes──▶  newcomer's node: fetch() → sealed → StateReady
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from hpresil.base.errors import ConfigError, TransferFailed
from hpresil.launch.memory import Arenas
from hpresil.membership.agent_messages import AgentJoined
from hpresil.membership.door import Door, call
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import (
    ANSWERED,
    ASKED,
    Coming,
    Elected,
    Fetch,
    Ping,
    Pong,
    Stand,
    Vote,
)
from hpresil.membership.refusals import Refusals
from hpresil.membership.tls import Credentials

PROBE_S = 5.0
STALL_S = 10.0
CHUNK_BYTES = 1 << 20
SEAL_PAGE_BYTES = 4096
"""The first bytes of a frame, which say that the others are whole (see `snapshot.layout`)."""


Visitor = Callable[[AgentJoined, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peers:
    """This node's door for other agents, and its calls to them.

    Single-threaded: to be used from the agent's event loop.

    Args:
        credentials: The job's.
        arenas: The frames of this node.
        refusals: Counts what is turned away.
        stored: Returns the frame of the newest sealed version if it is this one, else -1.
        hold: Keeps a frame from being filled again if it holds this version, and returns a number for
            `release`; -1: it does not hold it (any more).
        release: Called with that number when the frame has gone out, well or not, and to which node.
        wait_s: How long a request may wait for its frame.

    Attributes:
        stood: Answers an agent that would be the coordinator.
        elected: Called when another agent says that it is.
        joining: Takes over a connection that begins with `AgentJoined`, if the coordinator lives here.
    """

    def __init__(
        self,
        credentials: Credentials,
        arenas: Arenas,
        refusals: Refusals,
        *,
        stored: Callable[[int], int],
        hold: Callable[[int, int], int],
        release: Callable[[int, str], None],
        wait_s: float,
    ) -> None:
        self._credentials, self._arenas, self._refusals = credentials, arenas, refusals
        self._stored, self._hold, self._release, self._wait_s = stored, hold, release, wait_s
        self._offered: dict[tuple[int, int], int] = {}
        self._change = asyncio.Condition()
        self._door = Door(self._visit, credentials, refusals)
        self.stood: Callable[[Stand], Vote] = lambda stand: Vote(granted=False, term=0)
        self.elected: Callable[[Elected], None] = lambda elected: None
        self.joining: Visitor | None = None
        self.bytes_received = 0
        self.bytes_sent = 0

    async def open(self, host: str) -> str:
        """Listen on ``host``; return HOST:PORT. Raises ConfigError if that is no address of this machine."""
        return f"{host}:{await self._door.open(host, 0)}"

    async def close(self) -> None:
        """Stop listening and cut all transfers."""
        await self._door.close()

    async def probe(self, addresses: dict[str, str]) -> dict[str, str]:
        """Return which of these agents (node → HOST:PORT) cannot be reached, and why."""
        errors = await asyncio.gather(*map(self._ping, addresses.values()))
        return {node: error for node, error in zip(addresses, errors, strict=True) if error}

    async def stand(self, address: str, stand: Stand) -> Vote | None:
        """Ask another agent for its vote; None if it does not answer."""
        answer = await self._ask(address, stand)
        return answer if isinstance(answer, Vote) else None

    async def tell(self, address: str, elected: Elected) -> None:
        """Tell another agent who the coordinator is; one that does not answer is told again later."""
        await self._ask(address, elected)

    async def offer(self, generation: int, version: int, frame: int) -> None:
        """Other nodes may have ``frame`` when they ask for that version in that generation."""
        async with self._change:
            self._offered = {
                key: f for key, f in self._offered.items() if key[0] >= generation and f != frame
            }
            self._offered[generation, version] = frame
            self._change.notify_all()

    async def fetch(
        self, address: str, wish: Fetch, frame: int, begun: Callable[[], None] = lambda: None
    ) -> int:
        """Copy a frame of another node into ``frame`` here; return its bytes.

        ``begun`` is called when the other agent has the frame and its bytes come.

        Raises:
            TransferFailed: the other agent has no such frame, stalls, or is gone; the frame's content is
                undefined.
        """
        try:
            async with asyncio.timeout(self._wait_s + STALL_S):
                reader, writer = await _call(address, self._credentials)
                try:
                    write_message(writer, wish)
                    size = await self._announced(reader)
                    begun()
                    return await self._receive(reader, size, self._arenas.fds[frame])
                finally:
                    writer.transport.abort()
        except (OSError, EOFError, TimeoutError, ConfigError) as error:  # the last: no memory either
            raise TransferFailed(f"{address}: {str(error) or 'no answer in time'}") from error

    async def _announced(self, reader: asyncio.StreamReader) -> int:
        answer = await read_message(reader, ANSWERED)
        if not isinstance(answer, Coming) or answer.frame_bytes < 0:
            raise TransferFailed(answer.error if isinstance(answer, Coming) else "the agent hung up")
        return answer.frame_bytes

    async def _receive(self, reader: asyncio.StreamReader, size: int, fd: int) -> int:
        await self._arenas.grow(size)
        # The page with the seal comes first and is written last: a newcomer may look into the frame by then.
        os.pwrite(fd, bytes(SEAL_PAGE_BYTES), 0)
        async with asyncio.timeout(STALL_S):
            head = await reader.readexactly(min(SEAL_PAGE_BYTES, size))
        done = len(head)
        while done < size:
            async with asyncio.timeout(STALL_S):
                data = await reader.read(min(CHUNK_BYTES, size - done))
            if not data:
                raise TransferFailed(f"the agent hung up after {done} of {size} bytes")
            os.pwrite(fd, data, done)
            done += len(data)
        os.pwrite(fd, head, 0)
        self.bytes_received += size
        return size

    async def _ping(self, address: str) -> str:
        answer = await self._ask(address, Ping())
        if isinstance(answer, str):
            return answer
        return "" if isinstance(answer, Pong) else f"{address} hung up"

    async def _ask(self, address: str, question: Ping | Stand | Elected) -> Pong | Coming | Vote | str | None:
        """Return another agent's answer, None if it hung up, or why there is none in words."""
        try:
            async with asyncio.timeout(PROBE_S):
                reader, writer = await _call(address, self._credentials)
                try:
                    write_message(writer, question)
                    return await read_message(reader, ANSWERED)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            return f"no answer from {address} within {PROBE_S:g} s"
        except (OSError, ConfigError, TransferFailed) as error:
            return f"{address}: {error}"

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                wish = await read_message(reader, ASKED)
            match wish:
                case Ping():
                    write_message(writer, Pong())
                case Stand():
                    write_message(writer, self.stood(wish))
                case Elected():
                    self.elected(wish)
                    write_message(writer, Pong())
                case Fetch():
                    return await self._send(wish, reader, writer)
                case AgentJoined() if self.joining is not None:
                    return await self.joining(wish, reader, writer)
            await writer.drain()
        except (TransferFailed, TimeoutError) as error:
            self._refusals.turn_away("peer", str(error) or "a slow one")
        finally:
            writer.close()

    async def _send(self, wish: Fetch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frame = await self._frame_for(wish)
        held = self._hold(frame, wish.version) if frame >= 0 else -1
        if held < 0:
            error = f"version {wish.version} is not here for generation {wish.generation}"
            write_message(writer, Coming(frame_bytes=-1, error=error))
        else:
            try:
                await self._send_frame(frame, writer)
            finally:
                self._release(held, wish.node)
        async with asyncio.timeout(STALL_S):
            await reader.read(1)  # it hangs up when it has everything; to close before that would cut the end

    async def _send_frame(self, frame: int, writer: asyncio.StreamWriter) -> None:
        size, done = self._arenas.used[frame], 0
        write_message(writer, Coming(frame_bytes=size))
        while done < size:
            data = os.pread(self._arenas.fds[frame], min(CHUNK_BYTES, size - done), done)
            writer.write(data)
            async with asyncio.timeout(STALL_S):
                await writer.drain()
            done += len(data)
            self.bytes_sent += len(data)

    async def _frame_for(self, wish: Fetch) -> int:
        if wish.stored:
            return self._stored(wish.version)
        key = (wish.generation, wish.version)
        try:
            async with asyncio.timeout(self._wait_s), self._change:
                await self._change.wait_for(lambda: key in self._offered)
        except TimeoutError:
            return -1
        return self._offered[key]


async def _call(address: str, credentials: Credentials) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    try:
        return await call(host, int(port), credentials, PROBE_S)
    except (ValueError, OverflowError) as error:  # another agent said so
        raise TransferFailed(f"{address[:100]!r} is no address: {error}") from error
