"""Moves sealed frames between agents: the face of the native transfer engine (csrc/transfer).

A `FrameServer` offers versions that lie in memory files here; a `Fetch` brings one into a memory file here,
from one source or several, over TCP or, on the same machine, by a descriptor that is passed. Both ends prove
to hold the job's secret before any byte, every chunk is checked, and a broken connection costs only the
chunks that were on their way. Everything runs in native threads without the GIL. Why so:
docs/design/peer-transfer.md.

    chain     Fetch(…, sources=[predecessor, source]) and server.offer_arriving(fetch): a pipeline of agents
    stripes   Fetch(…, sources=[a, b, c], settings=FetchSettings(at_once=3))

What is *not* guaranteed: secrecy. Bytes travel readable, as the collectives' do; who sent them is certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hpresil import native
from hpresil.membership.refusals import Refusals
from hpresil.snapshot.transfer_terms import (
    CHUNK_BYTES,
    FetchSettings,
    Outcome,
    Route,
    ServerSettings,
    Source,
    SourceReport,
)

__all__ = [
    "CHUNK_BYTES",
    "Fetch",
    "FetchSettings",
    "FrameServer",
    "Outcome",
    "Route",
    "ServerSettings",
    "Source",
    "SourceReport",
    "frame_bytes_at",
]


class Fetch:
    """One version on its way into a memory file here. Starts at once. Thread safe.

    Args:
        secret: The job's, 16 to 4096 bytes.
        job: Its name.
        generation: Under which the version was offered.
        version: Which state.
        fd: The memory file, of ``begin + nbytes`` or more; it may be closed afterwards.
        nbytes: The frame's size, see `frame_bytes_at`.
        sources: Who has it, in the order of preference.
        begin: Where in the file it begins, at all ends of the transfer. What lies before is not transferred:
            a page with a seal, say, that is valid once the rest is here.
        mapping: A writable mapping of the file, if there is one: saves the page faults of a new one.
        here: What is here already, from an earlier `Outcome`.

    Raises:
        NativeError: Wrong arguments, no libcrypto, or no descriptor or thread is left.
    """

    def __init__(
        self,
        secret: bytes,
        job: str,
        generation: int,
        version: int,
        fd: int,
        nbytes: int,
        sources: Sequence[Source],
        *,
        settings: FetchSettings | None = None,
        begin: int = 0,
        mapping: native.Mapping | None = None,
        here: bytes = b"",
    ) -> None:
        how = settings or FetchSettings()
        self._names = [source.name for source in sources]
        self._nbytes, self._chunk_bytes = nbytes, how.chunk_bytes
        # A view keeps the mapping from being closed while bytes are received into it.
        self._view = memoryview(mapping) if mapping is not None else None
        self.native = native.FrameFetch(
            secret,
            job,
            generation,
            version,
            fd,
            nbytes,
            [_flat(source) for source in sources],
            begin=begin,
            address=mapping.address + begin if mapping is not None else 0,
            chunk_bytes=how.chunk_bytes,
            streams=how.streams,
            at_once=how.at_once,
            window=how.window,
            connect_s=how.connect_s,
            stall_s=how.stall_s,
            deadline_s=how.deadline_s,
            appear_s=how.appear_s,
            copy_threads=how.copy_threads,
            here=here,
        )

    def wait(self, timeout_s: float) -> bool:
        """Return whether it has ended, waiting up to ``timeout_s``."""
        return self.native.wait(timeout_s)

    async def ended(self) -> Outcome:
        """Return the outcome, in an event loop; cancelling this cancels the fetch."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self.native.fd, over.set)
        try:
            await over.wait()  # ends at the latest at the fetch's own deadline
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            loop.remove_reader(self.native.fd)
        return self.outcome()

    def cancel(self) -> None:
        """End it; what is here stays. Returns at once, `wait` tells when its threads are gone."""
        self.native.cancel()

    def leading_bytes(self) -> int:
        """Return how many bytes are here from the beginning on, without a gap."""
        gap = self.native.here().find(b"\0")
        return self._nbytes if gap < 0 else gap * self._chunk_bytes

    def outcome(self) -> Outcome:
        """Return how it stands; "running" is its state before the end."""
        reports = [SourceReport(**report) for report in self.native.reports()]
        return Outcome(
            state=self.native.state,
            elapsed_s=self.native.elapsed_s,
            here=self.native.here(),
            sources=dict(zip(self._names, reports, strict=True)),
        )


class FrameServer:
    """Offers frames to the job's other agents. Thread safe, except `tell`.

    Raises:
        NativeError: The address is not one of this machine, no libcrypto, or no descriptor is left.
    """

    def __init__(self, secret: bytes, job: str, settings: ServerSettings) -> None:
        self.native = native.FrameServer(
            secret,
            job,
            host=settings.host,
            port=settings.port,
            unix_path=settings.unix_path,
            handshake_s=settings.handshake_s,
            stall_s=settings.stall_s,
            idle_s=settings.idle_s,
            most_waiting=settings.most_waiting,
            most_clients=settings.most_clients,
        )
        self._views: dict[int, memoryview | Fetch] = {}
        self._told: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The TCP port, 0 without one."""
        return self.native.port

    def offer(
        self,
        generation: int,
        version: int,
        fd: int,
        nbytes: int,
        *,
        crc: int | None = None,
        begin: int = 0,
        mapping: native.Mapping | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> int:
        """Offer ``nbytes`` of a file from ``begin`` on until `withdraw`; return the offer's number.

        ``crc``: the CRC-32C of these bytes, which a client of this machine compares. They must not change
        before `withdraw` has returned True.
        """
        address = mapping.address + begin if mapping is not None else 0
        number = self.native.offer(
            generation, version, fd, nbytes, crc, begin=begin, address=address, chunk_bytes=chunk_bytes
        )
        if mapping is not None:
            self._views[number] = memoryview(mapping)
        return number

    def offer_arriving(self, fetch: Fetch) -> int:
        """Offer what a fetch has brought so far and brings on; return the offer's number."""
        number = self.native.offer_arriving(fetch.native)
        self._views[number] = fetch
        return number

    def takers(self, offer: int) -> int:
        """Return how many connections take this offer now."""
        return self.native.takers(offer)

    def withdraw(self, offer: int, timeout_s: float) -> bool:
        """End an offer and its connections; return whether nobody reads the frame any more."""
        free = self.native.withdraw(offer, timeout_s)
        if free:
            self._views.pop(offer, None)
        return free

    def counters(self) -> dict[str, int]:
        """Return bytes and chunks sent over TCP, descriptors passed, clients and strangers of the moment."""
        return self.native.counters()

    def refused(self) -> dict[str, int]:
        """Return how many connections were refused or cut off, by reason."""
        return self.native.refused()

    def tell(self, refusals: Refusals) -> None:
        """Add what was refused since the last call; the first of each kind is logged."""
        for reason, count in self.refused().items():
            new = count - self._told.get(reason, 0)
            if new > 0:
                kind = f"transfer: {reason}"
                refusals.turn_away(kind, f"{new} connections to the transfer engine")
                refusals.counts[kind] += new - 1
                self._told[reason] = count

    def close(self) -> None:
        """End all offers, connections and threads."""
        self.native.close()
        self._views.clear()


def frame_bytes_at(
    secret: bytes,
    job: str,
    generation: int,
    version: int,
    source: Source,
    timeout_s: float,
    appear_s: float = 0.0,
) -> int | None:
    """Return how many bytes a version has at ``source``, None if it is not there.

    None also if there are as many connections to ``source`` as it may serve: it lives, and is in the job.

    Raises:
        NativeError: It cannot be asked.
    """
    return native.frame_bytes_at(secret, job, generation, version, [_flat(source)], timeout_s, appear_s)


def _flat(source: Source) -> tuple[str, list[tuple[str, str, int]], str]:
    return source.name, [(r.leave_by, r.host, r.port) for r in source.routes], source.unix_path
