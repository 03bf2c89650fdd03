"""A TCP port that lets in only those who belong to the job.

Everybody else is a stranger: it gets a TLS handshake, a short time for it, and nothing more. Strangers are
few at a time whatever they do: who comes while `MAX_STRANGERS` are at the door takes the place of the one
that has stood there longest. So ten thousand silent connections cost a few kilobytes each for a moment, and
they do not keep members out: a handshake takes a member a few rounds of the event loop, in each of which
`ACCEPTS` newcomers come, and one that is pushed out all the same tries again. Whoever is turned away is
counted and logged once for each kind; no stranger ends the process.

The first byte on the encrypted connection is `WELCOME`, from the door: until then the caller cannot know
whether its own certificate was accepted, because in TLS 1.3 its part of the handshake ends before that.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import Awaitable, Callable

from hpresil.base.errors import ConfigError
from hpresil.membership.refusals import Refusals
from hpresil.membership.tls import Credentials

MAX_STRANGERS = 128
ACCEPTS = 8
HANDSHAKE_S = 5.0
RETRY_S = 0.02
MAX_HANG_UPS = 20
BACKLOG = 1024
WELCOME = b"\x06"
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
        self._strangers: dict[asyncio.Task[None], None] = {}  # the one that came first, first
        self._visits: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen on ``host``; return the port, chosen by the system if ``port`` is 0.

        Raises:
            ConfigError: the port is taken, or the address is not one of this machine.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            sock = socket.create_server((host, port), family=family)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"cannot listen on {host}:{port}: {why}; choose an address and a free port of this machine"
            ) from error
        # To asyncio the backlog is also how many connections it takes at once, before anybody is looked at:
        # so many descriptors must be free. The kernel may keep more of them waiting.
        self._server = await asyncio.start_server(self._admit, sock=sock, backlog=ACCEPTS, limit=STREAM_BYTES)
        sock.listen(BACKLOG)
        return int(sock.getsockname()[1])

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
        task = asyncio.current_task()
        assert task is not None
        self._make_room()
        self._visits.add(task)
        self._strangers[task] = None
        try:
            # Nothing may wait before this: what a stranger sends in plain text must never be read.
            await writer.start_tls(self._context, ssl_handshake_timeout=HANDSHAKE_S)
            if writer.get_extra_info("ssl_object").version() is None:
                raise ConnectionAbortedError("the connection ended in the handshake")
            self._strangers.pop(task, None)
            _watch_line(writer)
            writer.write(WELCOME)
            await self._visit(reader, writer)
        except (OSError, asyncio.CancelledError) as error:
            if self._strangers.pop(task, "known") is None:
                self._refusals.turn_away("stranger", f"{peer}: {str(error) or type(error).__name__}")
        finally:
            self._visits.discard(task)
            writer.transport.abort()

    def _make_room(self) -> None:
        """Turn away the stranger that has been here longest if there are too many."""
        if len(self._strangers) >= MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.cancel()
            self._refusals.turn_away("crowd", f"more than {MAX_STRANGERS} at once have not proved anything")


async def call(
    host: str, port: int, credentials: Credentials, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to another agent's door; where too many strangers push, try again.

    Raises:
        ConfigError: whoever is there does not belong to this job, or says that we do not.
        OSError, TimeoutError: nobody is there, or lets us in in time.
    """
    hang_ups = 0
    async with asyncio.timeout(timeout_s):
        while hang_ups < MAX_HANG_UPS:
            try:
                return await _enter(host, port, credentials)
            except ConnectionRefusedError:
                raise
            except asyncio.IncompleteReadError:  # it is one of us and hangs up on us
                hang_ups += 1
            except ConnectionError:
                pass
            await asyncio.sleep(RETRY_S)
    raise ConfigError(
        f"{host}:{port} does not take us for a part of this job: it hangs up after the handshake. Its log "
        "shows why; the certificates (or the secrets) differ, or ours is not valid there any more"
    )


async def _enter(
    host: str, port: int, credentials: Credentials
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    writer = None
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=credentials.client(), limit=STREAM_BYTES
        )
        welcome = await reader.readexactly(len(WELCOME))
        if welcome != WELCOME:
            raise ConfigError(f"{host}:{port} is not an agent of hpresil of this version")
        _watch_line(writer)
        return reader, writer
    except BaseException as error:
        if writer is not None:
            writer.transport.abort()
        if isinstance(error, ssl.SSLError):
            raise ConfigError(
                f"{host}:{port} does not belong to this job ({_reason(error)}): the secrets (or the "
                "certificates) differ; use the first node's secret everywhere (HPRESIL_SECRET_FILE)"
            ) from error
        raise


def _reason(error: ssl.SSLError) -> str:
    """Return what the library says; the time here too, of a certificate that is not valid at it."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return error.reason or str(error)
    said = f"{error.reason}: {error.verify_message}"
    here = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"{said}; the time here is {here}" if "valid" in error.verify_message else said


def _watch_line(writer: asyncio.StreamWriter) -> None:
    """Have the kernel notice a peer that is gone without a word, within about five seconds."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000)
