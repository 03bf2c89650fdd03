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
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpresil.base.deadline import now
from hpresil.base.errors import TransferFailed
from hpresil.launch import ways
from hpresil.launch.arriving import Arriving
from hpresil.launch.memory import Arenas
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ANSWERED, ASKED, Coming, Fetch, Holder, Ping
from hpresil.membership.refusals import Refusals
from hpresil.snapshot import transfer
from hpresil.snapshot.preface import HEADER_BYTES

JOB = "frames"
STALL_S = 10.0
PING_S = 1.0
LOOK_S = 0.004
WITHDRAW_S = 5.0
LINGER_S = 0.1


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
    """A frame that is offered to the engine: its number there, and who is taking it, first come first."""

    frame: int
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
    """

    def __init__(self, arenas: Arenas, book: Book, refusals: Refusals, wait_s: float) -> None:
        self._arenas, self._book, self._refusals, self._wait_s = arenas, book, refusals, wait_s
        self._ready: dict[tuple[int, int], int] = {}
        self._change = asyncio.Condition()
        self._offers: dict[tuple[int, int], _Offer] = {}
        self._key = b""
        self._engine: transfer.FrameServer | None = None
        self._here = Holder(host="", port=0, machine="", socket="")
        self._passing: dict[int, int] = {}  # by frame, the offer of what is arriving or has just arrived
        self.bytes_received = 0

    def open(self, host: str, socket: Path, key: bytes) -> None:
        """Let others have frames who know the job's ``key``; again with the same key does nothing.

        ``host`` is the address to listen at; ``socket`` is for agents of this machine.

        Raises:
            NativeError: The address is not one of this machine, or there is no libcrypto.
        """
        if key == self._key:
            return
        self.close()
        settings = transfer.ServerSettings(host=ways.numeric(host), unix_path=str(socket), stall_s=STALL_S)
        self._engine = transfer.FrameServer(key, JOB, settings)
        self._here = Holder(
            host=settings.host, port=self._engine.port, machine=ways.this_machine(), socket=str(socket)
        )
        self._key = key

    def close(self) -> None:
        """Cut all transfers to others."""
        if self._engine is not None:
            self._engine.tell(self._refusals)
            self._engine.close()
            self._engine, self._key = None, b""
        self._offers.clear()
        self._passing.clear()

    async def watch(self) -> None:
        """Tell of what the engine turned away, for as long as this runs."""
        while True:
            await asyncio.sleep(PING_S)
            if self._engine is not None:
                self._engine.tell(self._refusals)

    @property
    def bytes_sent(self) -> int:
        """What went out over the network."""
        return self._engine.counters()["sent_bytes"] if self._engine is not None else 0

    # ------------------------------------------------------------------ giving

    async def ready(self, generation: int, version: int, frame: int) -> None:
        """Other nodes may have ``frame`` when they ask for that version in that generation."""
        async with self._change:
            self._ready = {key: f for key, f in self._ready.items() if key[0] >= generation and f != frame}
            self._ready[generation, version] = frame
            self._change.notify_all()

    async def give(self, wish: Fetch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request: the frame is kept and offered until the other agent hangs up or falls silent."""
        offered = self._offers.get((wish.generation, wish.version))
        frame = offered.frame if offered is not None else await self._frame_for(wish)
        held = self._book.hold(frame, wish.version) if frame >= 0 and self._engine is not None else -1
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
        finally:
            self._book.release(held, wish.node)

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
        assert self._engine is not None
        mapping = await self._arenas.mapping(frame)
        engine, key = self._engine, (wish.generation, wish.version)
        if key not in self._offers:
            fd, rest = self._arenas.fds[frame], self._arenas.used[frame] - HEADER_BYTES
            number = engine.offer(*key, fd, rest, begin=HEADER_BYTES, mapping=mapping)
            self._offers[key] = _Offer(frame, number, [])
        offer = self._offers[key]
        before = offer.takers[-1:]
        offer.takers.append(wish.holder)
        try:
            yield (*before, self._here)
        finally:
            offer.takers.remove(wish.holder)
            if not offer.takers and self._offers.get(key) is offer:
                del self._offers[key]
                await asyncio.to_thread(engine.withdraw, offer.number, WITHDRAW_S)

    async def _until_it_hangs_up(self, reader: asyncio.StreamReader) -> None:
        while True:
            async with asyncio.timeout(STALL_S):
                if await read_message(reader, ASKED) is None:
                    return

    # ------------------------------------------------------------------ taking

    async def take(
        self,
        wish: Fetch,
        frame: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        begun: Callable[[], None],
    ) -> int:
        """Bring what was asked for into ``frame``; return its bytes. ``begun``: it is on its way.

        Raises:
            TransferFailed: nobody has such a frame, or all who do stall or are gone; the frame is not valid.
            ConfigError: there is no memory for it.
        """
        write_message(writer, msgspec.structs.replace(wish, holder=self._here))
        coming = await read_message(reader, ANSWERED)
        if not isinstance(coming, Coming) or coming.frame_bytes < 0:
            raise TransferFailed(coming.error if isinstance(coming, Coming) else "the agent hung up")
        if coming.frame_bytes <= HEADER_BYTES or len(coming.head) != HEADER_BYTES:
            raise TransferFailed(f"a frame of {coming.frame_bytes} bytes is none")
        begun()
        await self._arenas.grow(coming.frame_bytes)
        arriving = Arriving(self._arenas.fds[frame], coming.head)
        await self._bring(wish, frame, coming, arriving, writer)
        self.bytes_received += coming.frame_bytes
        return coming.frame_bytes

    async def pass_on(self, frame: int) -> None:
        """Return once nobody takes from here what was brought into ``frame``; it must not change before."""
        engine, offer = self._engine, self._passing.pop(frame, None)
        if engine is None or offer is None:
            return
        try:
            while engine.takers(offer):
                await asyncio.sleep(LINGER_S)
        finally:
            await asyncio.to_thread(engine.withdraw, offer, WITHDRAW_S)

    async def _bring(
        self, wish: Fetch, frame: int, coming: Coming, arriving: Arriving, writer: asyncio.StreamWriter
    ) -> None:
        """Fetch all but the first page; nothing writes into the frame once this is over."""
        fetch = await self._begin(wish, frame, coming)
        if self._engine is not None:
            self._passing[frame] = self._engine.offer_arriving(fetch)
        whole = False
        try:
            await self._follow(fetch, arriving, writer)
            arriving.whole()
            whole = True
        finally:
            fetch.cancel()
            await asyncio.to_thread(fetch.wait, WITHDRAW_S)
            if not whole:
                arriving.given_up()
                await self.pass_on(frame)

    async def _follow(self, fetch: transfer.Fetch, arriving: Arriving, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(fetch.ended())
        pinged = now()
        while not (await asyncio.wait([ended], timeout=LOOK_S))[0]:
            arriving.came(HEADER_BYTES + fetch.leading_bytes())
            if now() - pinged > PING_S:
                write_message(writer, Ping())  # so that the source keeps the frame
                pinged = now()
        (await ended).check()

    async def _begin(self, wish: Fetch, frame: int, coming: Coming) -> transfer.Fetch:
        return transfer.Fetch(
            self._key,
            JOB,
            wish.generation,
            wish.version,
            self._arenas.fds[frame],
            coming.frame_bytes - HEADER_BYTES,
            ways.to(coming.holders, self._here.machine),
            begin=HEADER_BYTES,
            mapping=await self._arenas.mapping(frame),
            settings=transfer.FetchSettings(stall_s=STALL_S, deadline_s=self._wait_s),
        )
