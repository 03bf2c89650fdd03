"""Frames on their way between agents: who may have which, and the engine that moves them.

Requests travel over the agents' own connections (`peers`), bytes over those of the native engine
(`snapshot.transfer`), or not at all: on one machine the file is passed and copied. A frame's first page says
what there is of the others. It comes with the answer, and is written when there is something (`arriving`).

    agent that wants it                        agent that has it
      Fetch        ──────────────────────────▶   holds the frame, offers it to the engine
      Coming       ◀──────────────────────────   first page; who has the rest, in the order of preference
      engine       ◀════════ chunks ══════════   engine
      Ping, once a second, then hangs up ────▶   frees the frame

With several at once each is sent to the one before it, which passes on what it has: the frame leaves its
source once. Whoever was passing it on and dies is gone round: the source is always in the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.errors import ConfigError, NativeError
from hpresil.base.tasks import surely
from hpresil.launch import ways
from hpresil.launch.memory import Arenas
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ASKED, Coming, Fetch, Holder
from hpresil.membership.refusals import Refusals
from hpresil.snapshot import transfer
from hpresil.snapshot.preface import HEADER_BYTES

log = logging.getLogger(__name__)

JOB = "frames"
STALL_S = 10.0
PING_S = 1.0
PROBE_S = 5.0
WAIT_S = 5.0


@dataclass(frozen=True)
class Book:
    """What the node's frames are asked, and told.

    Attributes:
        stored: Returns the frame of the newest sealed version if it is this one, else -1.
        hold: Keeps a frame from being filled again if it holds this version, and returns a number for
            `release`; -1: it does not hold it (any more).
        release: Called with that number when the frame has gone out, well or not, and to which node.
    """

    stored: Callable[[int], int]
    hold: Callable[[int, int], int]
    release: Callable[[int, str], None]


@dataclass
class _Offer:
    """A frame that is offered: to which engine, its number there, and who is taking it, first come first."""

    engine: transfer.FrameServer
    number: int
    takers: list[Holder]


class Exchange:
    """What this node gives to others and takes from them.

    Single-threaded: to be used from the agent's event loop; the engine has threads of its own.

    Args:
        arenas: The frames of this node.
        book: What they hold.
        refusals: Counts what the engine turns away.
        wait_s: How long a request may wait for its frame, and a transfer may take.
        host: The address to listen at, in numbers.
        socket: Where agents of this machine take frames.

    Attributes:
        key: What agents prove themselves with; empty before `open`.
        engine: Offers what is here; None before `open`.
        here: How others get at that.
    """

    def __init__(
        self, arenas: Arenas, book: Book, refusals: Refusals, wait_s: float, *, host: str, socket: Path
    ) -> None:
        self._arenas, self._book, self._refusals, self._wait_s = arenas, book, refusals, wait_s
        self._settings = transfer.ServerSettings(host=host, unix_path=str(socket), stall_s=STALL_S)
        self._ready: dict[tuple[int, int], int] = {}
        self._change = asyncio.Condition()
        self._offers: dict[tuple[int, int, int], _Offer] = {}  # by generation, version, frame
        self.key = b""
        self.engine: transfer.FrameServer | None = None
        self.here = Holder()

    def open(self, key: bytes) -> None:
        """Let others have frames who know the job's ``key``; again with the same key does nothing.

        Raises:
            ConfigError: The address is not one of this machine, or no descriptor or thread is left.
        """
        if key == self.key:
            return
        self.close()
        try:
            self.engine = transfer.FrameServer(key, JOB, self._settings)
        except NativeError as error:
            raise ConfigError(f"frames cannot be offered to other nodes: {error}") from error
        self.key = key
        self.here = Holder(
            host=self._settings.host,
            port=self.engine.port,
            machine=ways.this_machine(),
            socket=self._settings.unix_path,
        )

    async def reaches(self, holder: Holder) -> str:
        """Return why nothing can be taken from another agent over the network, "" if it can."""
        if not holder.port or not self.key:
            return ""
        (source,) = ways.to([holder], machine="")
        try:
            await asyncio.to_thread(transfer.frame_bytes_at, self.key, JOB, 0, 0, source, PROBE_S)
        except NativeError as error:
            return f"{source.name} (frames): {error}"
        return ""

    def close(self) -> None:
        """Cut all transfers to others."""
        if self.engine is not None:
            self.engine.tell(self._refusals)
            self.engine.close()
            self.engine, self.key = None, b""
        self._offers.clear()

    async def watch(self) -> None:
        """Tell of what the engine turned away, for as long as this runs."""
        while True:
            await asyncio.sleep(PING_S)
            if self.engine is not None:
                self.engine.tell(self._refusals)

    @property
    def bytes_sent(self) -> int:
        """What went out over the network."""
        return self.engine.counters()["sent_bytes"] if self.engine is not None else 0

    # ------------------------------------------------------------------ giving

    async def ready(self, generation: int, version: int, frame: int) -> None:
        """Other nodes may have ``frame`` when they ask for that version in that generation."""
        async with self._change:
            self._ready = {key: f for key, f in self._ready.items() if key[0] >= generation and f != frame}
            self._ready[generation, version] = frame
            self._change.notify_all()

    async def give(self, wish: Fetch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request: the frame is kept and offered until the other agent hangs up or falls silent."""
        frame = self._frame_offered(wish)
        if frame < 0:
            frame = await self._frame_for(wish)
        held = self._book.hold(frame, wish.version) if frame >= 0 and self.engine is not None else -1
        if held < 0:
            error = f"version {wish.version} is not here for generation {wish.generation}"
            write_message(writer, Coming(frame_bytes=-1, error=error))
            return
        try:
            async with self._offered(wish, frame) as holders:
                head = os.pread(self._arenas.fds[frame], HEADER_BYTES, 0)
                size = self._arenas.used[frame]
                write_message(writer, Coming(frame_bytes=size, head=head, holders=holders))
                await self._until_it_hangs_up(reader)
        except NativeError as error:  # no memory to map it, no descriptor left
            write_message(writer, Coming(frame_bytes=-1, error=f"it cannot be offered: {error}"))
        finally:
            self._book.release(held, wish.node)

    def _frame_offered(self, wish: Fetch) -> int:
        asked = (wish.generation, wish.version)
        return next((frame for *offered, frame in self._offers if tuple(offered) == asked), -1)

    async def _frame_for(self, wish: Fetch) -> int:
        if wish.stored:
            return self._book.stored(wish.version)
        key = (wish.generation, wish.version)
        try:
            async with asyncio.timeout(self._wait_s), self._change:
                await self._change.wait_for(lambda: key in self._ready)
        except TimeoutError:
            return -1
        return self._ready[key]

    @contextlib.asynccontextmanager
    async def _offered(self, wish: Fetch, frame: int) -> AsyncIterator[tuple[Holder, ...]]:
        """Offer a frame to the engine while anybody takes it; gives who has it, the nearest first."""
        assert self.engine is not None
        engine, key = self.engine, (wish.generation, wish.version, frame)
        mapping = await self._arenas.mapping(frame)
        if key not in self._offers:
            fd, rest = self._arenas.fds[frame], self._arenas.used[frame] - HEADER_BYTES
            number = engine.offer(*key[:2], fd, rest, begin=HEADER_BYTES, mapping=mapping)
            self._offers[key] = _Offer(engine, number, [])
        offer = self._offers[key]
        others = [
            taker for taker in offer.takers if taker != wish.holder
        ]  # it may have come before and broken off
        offer.takers.append(wish.holder)
        try:
            yield (*others[-1:], self.here)
        finally:
            offer.takers.remove(wish.holder)
            if not offer.takers and self._offers.get(key) is offer:
                del self._offers[key]
                await surely(withdraw(engine, offer.number))

    async def _until_it_hangs_up(self, reader: asyncio.StreamReader) -> None:
        while True:
            async with asyncio.timeout(STALL_S):
                if await read_message(reader, ASKED) is None:
                    return


async def withdraw(engine: transfer.FrameServer, offer: int) -> None:
    """Return once nobody reads an offer any more: its connections are cut, so this is soon."""
    while not await asyncio.to_thread(engine.withdraw, offer, WAIT_S):
        log.warning("offer %d of a frame is withdrawn and still read", offer)
