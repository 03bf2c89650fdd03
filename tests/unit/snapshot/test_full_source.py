"""A source that serves as many connections as it may: takers wait, go to another one, or say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpresil.base.errors import DeadlineExceeded
from hpresil.snapshot.transfer import Fetch, FrameServer, frame_bytes_at
from transfer_case import (
    CHUNK,
    GENERATION,
    JOB,
    SECRET,
    VERSION,
    ended,
    fetch,
    frame,
    nothing_leaking,
    serving,
    settings,
    source,
)


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    with nothing_leaking():
        yield


@contextmanager
def a_client_stays_at(server: FrameServer) -> Iterator[None]:
    """Somebody waits there for a version that nobody offers."""
    want = frame(CHUNK)
    waits = settings(streams=1, appear_s=60.0)
    other = VERSION + 1
    to = [source(server.port)]
    running = Fetch(SECRET, JOB, GENERATION, other, want.fd, want.nbytes, to, settings=waits)
    try:
        while not server.counters()["clients"]:
            assert not running.wait(0.01), "it did not wait"
        yield
    finally:
        running.cancel()
        assert running.wait(10)
    end = time.monotonic() + 10
    while server.counters()["clients"]:
        assert time.monotonic() < end, "the server holds a client that has hung up"
        time.sleep(0.01)


def test_who_finds_a_source_full_waits_for_it() -> None:
    have = frame(3_000_000, 1)
    wants = [frame(have.nbytes) for _ in range(6)]
    with serving(have, most_clients=2) as server:
        fetches = [fetch(want, source(server.port), streams=2, window=1) for want in wants]
        for want, running in zip(wants, fetches, strict=True):
            ended(running).check()
            assert want.bytes() == have.bytes()
        assert server.refused()["too many clients"] > 0


def test_who_finds_a_source_full_takes_from_the_next_and_says_so_if_there_is_none() -> None:
    have, want = frame(3_000_000, 1), frame(3_000_000)
    with serving(have, most_clients=1) as full, serving(have) as other:
        with a_client_stays_at(full):
            outcome = ended(fetch(want, source(full.port, "full"), source(other.port, "other")))
            outcome.check()
            assert want.bytes() == have.bytes()
            assert outcome.sources["other"].received_bytes == have.nbytes
            late = ended(fetch(want, source(full.port), deadline_s=1.0))
            assert late.sources["source"].reasons["too many"] > 1
            with pytest.raises(DeadlineExceeded, match="serves as many connections as it may"):
                late.check()
            assert frame_bytes_at(SECRET, JOB, GENERATION, VERSION, source(full.port), 5) is None
        assert frame_bytes_at(SECRET, JOB, GENERATION, VERSION, source(full.port), 5) == have.nbytes
