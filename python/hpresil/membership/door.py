"""A TCP port that lets in only those who belong to the job.

Everybody else is a stranger: it gets a TLS handshake, a short time for it, and nothing more. Strangers are
few at a time whatever they do: who comes while `MAX_STRANGERS` are at the door is turned away at once, so
ten thousand silent connections cost a few kilobytes each for a moment. Whoever is turned away is counted and
logged once for each kind; no stranger ends the process.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from hpresil.base.errors import ConfigError
from hpresil.membership.refusals import Refusals
from hpresil.membership.tls import Credentials

MAX_STRANGERS = 128
HANDSHAKE_S = 5.0
BACKLOG = 1024
STREAM_BYTES = 4 << 20

Visit = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """One listening port.

    Single-threaded: to be used from one event loop.

    Args:
        visit: Called for each connection of a member of the job; it closes the connection.
        credentials: The job's.
        refusals: Counts those who are turned away.
    """

    def __init__(self, visit: Visit, credentials: Credentials, refusals: Refusals) -> None:
        self._visit = visit
        self._context = credentials.server()
        self._refusals = refusals
        self._strangers = 0
        self._visits: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen on ``host``; return the port, chosen by the system if ``port`` is 0.

        Raises:
            ConfigError: the port is taken, or the address is not one of this machine.
        """
        try:
            self._server = await asyncio.start_server(
                self._admit, host, port, backlog=BACKLOG, limit=STREAM_BYTES
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose an address and a free "
                "port of this machine"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for visit in list(self._visits):
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self._strangers >= MAX_STRANGERS:
            self._refusals.turn_away("crowd", f"{peer} comes while {MAX_STRANGERS} have not proved anything")
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._visits.add(task)
        self._strangers += 1
        stranger = True
        try:
            await writer.start_tls(self._context, ssl_handshake_timeout=HANDSHAKE_S)
            self._strangers -= 1
            stranger = False
            _watch_line(writer)
            await self._visit(reader, writer)
        except (ssl.SSLError, OSError, asyncio.CancelledError) as error:
            if stranger:
                self._refusals.turn_away("stranger", f"{peer}: {error or type(error).__name__}")
        finally:
            self._strangers -= stranger
            self._visits.discard(task)
            writer.transport.abort()


async def call(
    host: str, port: int, credentials: Credentials, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to another agent's door.

    Raises:
        ConfigError: whoever is there does not belong to this job.
        OSError, TimeoutError: nobody is there.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=credentials.client(), limit=STREAM_BYTES
            )
    except ssl.SSLError as error:
        raise ConfigError(
            f"{host}:{port} does not belong to this job ({error.reason or error}): the secrets (or the "
            "certificates) differ; use the first node's secret everywhere (HPRESIL_SECRET_FILE)"
        ) from error
    _watch_line(writer)
    return reader, writer


def _watch_line(writer: asyncio.StreamWriter) -> None:
    """Have the kernel notice a peer that is gone without a word, within about five seconds."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
