"""Agents among themselves: do we reach each other, who coordinates, who may have which frame.

One connection a request, through a `Door`, so both ends belong to the job and nobody can change a byte on
the way. A request is one framed message, and so is its answer. How frames travel: `exchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hpresil.base.errors import ConfigError, DeadlineExceeded, NativeError, TransferFailed
from hpresil.launch.exchange import STALL_S, Exchange
from hpresil.launch.taking import Taking
from hpresil.membership.agent_messages import AgentJoined
from hpresil.membership.door import Door, call
from hpresil.membership.framing import close_once, read_message, write_message
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


Visitor = Callable[[AgentJoined, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peers:
    """This node's door for other agents, and its calls to them.

    Single-threaded: to be used from the agent's event loop.

    Args:
        credentials: The job's.
        refusals: Counts what is turned away.
        exchange: Gives frames to other agents.
        taking: Takes theirs.
        wait_s: How long a frame may take to be there.

    Attributes:
        stood: Answers an agent that would be the coordinator.
        elected: Called when another agent says that it is.
        joining: Takes over a connection that begins with `AgentJoined`, if the coordinator lives here.
    """

    def __init__(
        self,
        credentials: Credentials,
        refusals: Refusals,
        exchange: Exchange,
        taking: Taking,
        *,
        wait_s: float,
    ) -> None:
        self._credentials, self._refusals, self._wait_s = credentials, refusals, wait_s
        self.exchange, self.taking = exchange, taking
        self._door = Door(self._visit, credentials, refusals)
        self.stood: Callable[[Stand], Vote] = lambda stand: Vote(granted=False, term=0)
        self.elected: Callable[[Elected], None] = lambda elected: None
        self.joining: Visitor | None = None

    async def open(self, host: str) -> str:
        """Listen on ``host``; return HOST:PORT. Raises ConfigError if that is no address of this machine."""
        return f"{host}:{await self._door.open(host, 0)}"

    async def close(self) -> None:
        """Stop listening and cut all transfers."""
        await self._door.close()
        self.exchange.close()

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
                    return await self.taking.take(wish, frame, reader, writer, begun)
                finally:
                    writer.transport.abort()
        except (OSError, EOFError, TimeoutError, ConfigError, DeadlineExceeded, NativeError) as error:
            raise TransferFailed(f"{address}: {str(error) or 'no answer in time'}") from error

    async def _ping(self, address: str) -> str:
        answer = await self._ask(address, Ping())
        if isinstance(answer, Pong):
            return await self.exchange.reaches(answer.frames)
        return answer if isinstance(answer, str) else f"{address} hung up"

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
                    write_message(writer, Pong(frames=self.exchange.here))
                case Stand():
                    write_message(writer, self.stood(wish))
                case Elected():
                    self.elected(wish)
                    write_message(writer, Pong())
                case Fetch():
                    await self.exchange.give(wish, reader, writer)
                case AgentJoined() if self.joining is not None:
                    return await self.joining(wish, reader, writer)
            await writer.drain()
        except (TransferFailed, TimeoutError) as error:
            self._refusals.turn_away("peer", str(error) or "a slow one")
        finally:
            close_once(writer)


async def _call(address: str, credentials: Credentials) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    try:
        return await call(host, int(port), credentials, PROBE_S)
    except (ValueError, OverflowError) as error:  # another agent said so
        raise TransferFailed(f"{address[:100]!r} is no address: {error}") from error
