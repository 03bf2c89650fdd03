"""Doors, strangers and members, for tests of what happens at a port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hpresil.membership import tls
from hpresil.membership.door import Door
from hpresil.membership.refusals import Refusals

HOST = "127.0.0.1"
LIMIT_S = 30.0
OURS = tls.from_secret(b"the secret of this job, 32 bytes")
THEIRS = tls.from_secret(b"the secret of another job, and so")
DEFECTS: list[dict[str, object]] = []


def run(scenario: Callable[[], Awaitable[None]], limit_s: float = LIMIT_S) -> None:
    """Run to the end; nothing may have reached the event loop's handler of defects."""

    async def bounded() -> None:
        DEFECTS.clear()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: DEFECTS.append(context))
        async with asyncio.timeout(limit_s):
            await scenario()

    asyncio.run(bounded())
    assert DEFECTS == []


@asynccontextmanager
async def door(
    visit: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None,
    credentials: tls.Credentials = OURS,
) -> AsyncIterator[tuple[int, Refusals]]:
    """Open a door that says back what it hears; yield its port and its refusals."""
    refusals = Refusals()
    opened = Door(visit or echo, credentials, refusals)
    port = await opened.open(HOST, 0)
    try:
        yield port, refusals
    finally:
        await opened.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)


async def throw(port: int, data: bytes, *, wait: bool = True) -> bytes:
    """Send bytes as they are; return what comes back until the other end hangs up."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(data)
        if wait:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


async def eventually(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
