"""A frame from another node comes into the memory of this one, and goes on from here to the next.

See `exchange` for how agents speak about it. A newcomer on this node may read what has come, parameters first
(`arriving`), and so may other nodes. Whatever ends a transfer, nothing writes into the frame afterwards, and
after a failure it is valid for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from hpresil.base.deadline import now
from hpresil.base.errors import TransferFailed
from hpresil.base.tasks import surely
from hpresil.launch import ways
from hpresil.launch.arriving import Arriving
from hpresil.launch.exchange import JOB, PING_S, STALL_S, WAIT_S, Exchange, withdraw
from hpresil.launch.memory import Arenas
from hpresil.membership.framing import read_message, write_message
from hpresil.membership.peer_messages import ANSWERED, Coming, Fetch, Ping
from hpresil.snapshot import transfer
from hpresil.snapshot.preface import HEADER_BYTES

log = logging.getLogger(__name__)

LOOK_S = 0.004
LINGER_S = 0.1
GRACE_S = 2.0
APPEAR_S = 2.0
"""How long to wait for a holder that is about to have the frame, before the next one is asked."""


class Taking:
    """What this node takes from others.

    Single-threaded: to be used from the agent's event loop; the engine has threads of its own.

    Args:
        arenas: The frames of this node.
        exchange: Offers to others what comes.
        wait_s: How long a transfer may take.

    Attributes:
        bytes_received: What has come.
    """

    def __init__(self, arenas: Arenas, exchange: Exchange, wait_s: float) -> None:
        self._arenas, self._exchange, self._wait_s = arenas, exchange, wait_s
        # By frame, the offer of what is arriving or has just arrived, and where it was made.
        self._passing: dict[int, tuple[transfer.FrameServer, int]] = {}
        self.bytes_received = 0

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
        write_message(writer, msgspec.structs.replace(wish, holder=self._exchange.here))
        coming = await read_message(reader, ANSWERED)
        if not isinstance(coming, Coming) or coming.frame_bytes < 0:
            raise TransferFailed(coming.error if isinstance(coming, Coming) else "the agent hung up")
        if coming.frame_bytes <= HEADER_BYTES or len(coming.head) != HEADER_BYTES:
            raise TransferFailed(f"a frame of {coming.frame_bytes} bytes is none")
        begun()
        async with _saying_every_second(writer, Ping()):  # so that the source keeps the frame
            await self._arenas.grow(coming.frame_bytes)
            arriving = Arriving(self._arenas.fds[frame], coming.head)
            try:
                await self._bring(wish, frame, coming, arriving, reader)
            except BaseException:
                arriving.given_up()
                await self.drop(frame)
                raise
        self.bytes_received += coming.frame_bytes
        return coming.frame_bytes

    async def pass_on(self, frame: int) -> None:
        """Return once nobody takes from here what was brought into ``frame``; it must not change before."""
        passing = self._passing.get(frame)
        try:
            while passing is not None and passing[0].takers(passing[1]):
                await asyncio.sleep(LINGER_S)
        finally:
            await self.drop(frame)

    async def drop(self, frame: int) -> None:
        """Cut off who takes from here what was brought into ``frame``; afterwards it may change."""
        if (passing := self._passing.pop(frame, None)) is not None:
            await surely(withdraw(*passing))

    async def _bring(
        self, wish: Fetch, frame: int, coming: Coming, arriving: Arriving, reader: asyncio.StreamReader
    ) -> None:
        """Fetch all but the first page; nothing writes into the frame once this is over."""
        fetch = await self._begin(wish, frame, coming)
        try:
            if (engine := self._exchange.engine) is not None:
                self._passing[frame] = engine, engine.offer_arriving(fetch)
            await self._follow(fetch, arriving, reader)
        finally:
            await surely(_end(fetch))
        arriving.whole()

    async def _follow(self, fetch: transfer.Fetch, arriving: Arriving, reader: asyncio.StreamReader) -> None:
        """Say how far it is until it has ended; a source that is gone may be missed only for so long."""
        ended, gone = asyncio.ensure_future(fetch.ended()), asyncio.ensure_future(reader.read(1))
        came, at = -1, now()
        try:
            while not (await asyncio.wait([ended], timeout=LOOK_S))[0]:
                if (leading := fetch.leading_bytes()) > came:
                    came, at = leading, now()
                    arriving.came(HEADER_BYTES + came)
                if gone.done() and now() - at > GRACE_S:
                    raise TransferFailed(f"the source is gone, and nothing came for {GRACE_S:g} s")
            (await ended).check()
        finally:
            ended.cancel()
            gone.cancel()
            await asyncio.gather(ended, gone, return_exceptions=True)

    async def _begin(self, wish: Fetch, frame: int, coming: Coming) -> transfer.Fetch:
        return transfer.Fetch(
            self._exchange.key,
            JOB,
            wish.generation,
            wish.version,
            self._arenas.fds[frame],
            coming.frame_bytes - HEADER_BYTES,
            ways.to(coming.holders, self._exchange.here.machine),
            begin=HEADER_BYTES,
            mapping=await self._arenas.mapping(frame),
            settings=transfer.FetchSettings(stall_s=STALL_S, deadline_s=self._wait_s, appear_s=APPEAR_S),
        )


@contextlib.asynccontextmanager
async def _saying_every_second(writer: asyncio.StreamWriter, message: Ping) -> AsyncIterator[None]:
    async def say() -> None:
        while True:
            await asyncio.sleep(PING_S)
            write_message(writer, message)

    saying = asyncio.ensure_future(say())
    try:
        yield
    finally:
        saying.cancel()


async def _end(fetch: transfer.Fetch) -> None:
    """Return once none of its threads writes any more: they have no connections left, so this is soon."""
    fetch.cancel()
    while not await asyncio.to_thread(fetch.wait, WAIT_S):
        log.warning("a fetch was cancelled and still writes")
