"""Agents as far as frames go: memory, doors and engines, and a member that breaks the protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from hpresil.launch.exchange import Book, Exchange
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.taking import Taking
from hpresil.membership import tls
from hpresil.membership.door import Door
from hpresil.membership.peer_messages import Fetch
from hpresil.membership.refusals import Refusals

HOST = "127.0.0.1"
OURS = tls.from_secret(b"the secret of this job, 32 bytes")
KEY = b"the frames' key, also 32 bytes.."
WAIT_S = 30.0
SHORT_S = 1.0  # for those who wait for its end
WISH = Fetch(node="b", generation=2, version=7, stored=False)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        defects: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with asyncio.timeout(60):
            await scenario()
        assert defects == []

    asyncio.run(bounded())


class Node:
    """One agent's memory, door and engine; frame 0 holds ``content``."""

    def __init__(self, content: bytes, version: int, door: Path, wait_s: float) -> None:
        self.arenas, self.refusals = Arenas(), Refusals()
        self.content, self.version = content, version
        self.held: list[int] = []
        self.released: list[tuple[int, str]] = []
        book = Book(
            lambda version: 0 if version == self.version else -1,
            self._hold,
            lambda held, node: self.released.append((held, node)),
        )
        self.exchange = Exchange(self.arenas, book, self.refusals, wait_s, host=HOST, socket=door)
        self.taking = Taking(self.arenas, self.exchange, wait_s)
        self.peers = Peers(OURS, self.refusals, self.exchange, self.taking, wait_s=wait_s)
        self.address = ""

    def _hold(self, frame: int, version: int) -> int:
        if version != self.version:
            return -1
        self.held.append(frame)
        return len(self.held)

    async def open(self, key: bytes) -> None:
        await self.arenas.grow(max(len(self.content), 1))
        os.pwrite(self.arenas.fds[0], self.content, 0)
        self.arenas.used[0] = len(self.content)
        self.exchange.open(key)
        self.address = await self.peers.open(HOST)

    async def fetch(self, source: str, frame: int, node: str = "b", *, stored: bool = False) -> int:
        wish = Fetch(node=node, generation=2, version=7, stored=stored)
        return await self.peers.fetch(source, wish, frame)

    def bytes_of(self, frame: int, size: int) -> bytes:
        return os.pread(self.arenas.fds[frame], size, 0)


Made = Callable[..., Awaitable[Node]]


@asynccontextmanager
async def nodes(directory: Path) -> AsyncIterator[Made]:
    """Give a function that makes nodes; all are closed in the end."""
    async with AsyncExitStack() as stack:
        made: list[Node] = []

        async def make(
            content: bytes = b"", version: int = 7, key: bytes = KEY, wait_s: float = WAIT_S
        ) -> Node:
            one = Node(content, version, directory / f"frames-{len(made)}", wait_s)
            stack.callback(one.arenas.close)
            stack.push_async_callback(one.peers.close)
            await one.open(key)
            made.append(one)
            return one

        yield make


@asynccontextmanager
async def liar(visit: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A member of the job that does not keep to the protocol."""
    door = Door(visit, OURS, Refusals())
    port = await door.open(HOST, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await door.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
