"""Bytes that are harmed on their way: it is noticed, and only what is missing travels again."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpresil.base.errors import TransferFailed
from hpresil.snapshot.transfer import Source
from transfer_case import (
    CHUNK,
    GENERATION,
    SEED,
    VERSION,
    Proxy,
    ended,
    fetch,
    frame,
    nothing_leaking,
    serving,
    source,
)


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    with nothing_leaking():
        yield


@pytest.mark.parametrize("seed", range(6))
def test_a_fetch_goes_on_after_connections_are_cut_at_random_points(seed: int) -> None:
    have, want = frame(2_500_000, seed), frame(2_500_000)
    chance = random.Random(SEED + seed)
    cuts = [chance.randrange(0, 700_000) for _ in range(6)]

    def cut(number: int, total: int, data: bytes) -> bytes | None:
        return None if number < len(cuts) and total + len(data) > cuts[number] else data

    with serving(have) as server:
        proxy = Proxy(server.port, cut)
        try:
            outcome = ended(fetch(want, source(proxy.port), streams=2))
        finally:
            proxy.close()
        outcome.check()
        assert want.bytes() == have.bytes()
        assert outcome.sources["source"].received_bytes == have.nbytes, "no chunk that arrived travels again"
        assert outcome.sources["source"].breaks >= 3


def test_a_later_fetch_asks_only_for_what_is_missing() -> None:
    have, want = frame(1_000_000, 1), frame(1_000_000)

    def cut_for_good(number: int, total: int, data: bytes) -> bytes | None:
        return None if number > 0 or total > 300_000 else data

    with serving(have) as server:
        proxy = Proxy(server.port, cut_for_good)
        try:
            first = ended(fetch(want, source(proxy.port), streams=1))
        finally:
            proxy.close()
        with pytest.raises(TransferFailed, match=r"failed: \d+ of 62 chunks .*source: \d breaks"):
            first.check()
        assert 0 < sum(first.here) < 62
        second = ended(fetch(want, source(server.port), here=first.here))
        second.check()
        missing = first.here.count(0)
        assert second.sources["source"].received_bytes <= missing * CHUNK
        assert want.bytes() == have.bytes()


@pytest.mark.parametrize("bit", [0, 7, 64 * 8 + 3, 30_000])
def test_a_flipped_bit_is_noticed_and_the_chunk_fetched_again(bit: int) -> None:
    have, want = frame(200_000, 2), frame(200_000)
    behind_the_handshake = 40 + 64

    def flip(number: int, total: int, data: bytes) -> bytes:
        place = behind_the_handshake + bit // 8 - total
        if number == 0 and 0 <= place < len(data):
            changed = bytearray(data)
            changed[place] ^= 1 << bit % 8
            return bytes(changed)
        return data

    with serving(have) as server:
        proxy = Proxy(server.port, flip)
        try:
            outcome = ended(fetch(want, source(proxy.port), streams=1))
        finally:
            proxy.close()
        outcome.check()
        assert outcome.sources["source"].reasons == {"bad chunk": 1}
        assert want.bytes() == have.bytes()


def test_what_another_connection_carried_is_refused() -> None:
    have, want = frame(100_000, 3), frame(100_000)
    recorded = bytearray()

    def replay(number: int, total: int, data: bytes) -> bytes:
        if number == 0:
            recorded.extend(data)
            return data
        # The handshake is this connection's own; the chunks behind it are those of the first one.
        keep = max(0, 104 - total)
        return data[:keep] + bytes(recorded[total + keep : total + len(data)])

    with serving(have) as server:
        proxy = Proxy(server.port, replay)
        try:
            ended(fetch(want, source(proxy.port), streams=1)).check()
            again = frame(100_000)
            outcome = ended(fetch(again, source(proxy.port), streams=1))
        finally:
            proxy.close()
    assert outcome.state == "failed"
    assert set(outcome.sources["source"].reasons) == {"bad chunk"}
    assert sum(outcome.here) == 0


def test_chunks_in_another_order_are_refused() -> None:
    have, want = frame(4 * CHUNK, 4), frame(4 * CHUNK)
    message = 64 + CHUNK
    held = bytearray()

    def swap(number: int, total: int, data: bytes) -> bytes:
        if number > 0:
            return data
        held.extend(data)
        if len(held) < 104 + 4 * message:
            return b""
        first, second = held[104 : 104 + message], held[104 + message : 104 + 2 * message]
        return bytes(held[:104] + second + first + held[104 + 2 * message :])

    def pass_the_handshake(number: int, total: int, data: bytes) -> bytes:
        if number == 0 and total < 104:
            held.extend(data)
            return data
        passed = swap(number, total, data)
        return passed[104:] if number == 0 and passed else passed

    with serving(have) as server:
        proxy = Proxy(server.port, pass_the_handshake)
        try:
            outcome = ended(fetch(want, source(proxy.port), streams=1, window=4))
        finally:
            proxy.close()
    outcome.check()
    assert outcome.sources["source"].reasons == {"bad chunk": 1}
    assert want.bytes() == have.bytes()


def test_a_local_copy_with_another_checksum_is_refused(tmp_path: Path) -> None:
    have, want = frame(1_000_000, 8), frame(1_000_000)
    with serving(unix_path=str(tmp_path / "t")) as server:
        server.offer(GENERATION, VERSION, have.fd, have.nbytes, crc=1, chunk_bytes=CHUNK)
        outcome = ended(fetch(want, Source("here", unix_path=str(tmp_path / "t"))))
    assert outcome.state == "failed"
    assert set(outcome.sources["here"].reasons) == {"bad chunk"}


def test_a_silent_source_is_left_for_the_next_one() -> None:
    have, want = frame(100_000, 11), frame(100_000)
    silence = threading.Event()
    with serving(have) as server:

        def freeze(number: int, total: int, data: bytes) -> bytes:
            silence.wait(20)
            return data

        proxy = Proxy(server.port, freeze)
        try:
            running = fetch(
                want, source(proxy.port, "frozen"), source(server.port, "live"), streams=1, stall_s=0.2
            )
            outcome = ended(running)
        finally:
            silence.set()
            proxy.close()
    outcome.check()
    assert outcome.sources["frozen"].reasons == {"stalled": 4}
    assert outcome.sources["live"].received_bytes == have.nbytes
