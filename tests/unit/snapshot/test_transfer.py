"""Versions move between agents: the right bytes, from whoever still lives, once, and always to an end."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpresil.base.errors import DeadlineExceeded, NativeError, TransferFailed
from hpresil.snapshot.transfer import Fetch, FrameServer, Outcome, Route, Source, frame_bytes_at
from transfer_case import (
    CHUNK,
    GENERATION,
    JOB,
    SECRET,
    VERSION,
    MemoryFrame,
    Proxy,
    content,
    fetch,
    route,
    serving,
    settings,
    source,
)

SEED = 20261123


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def native_threads() -> int:
    names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
    return sum(path.read_text().startswith("hpresil") for path in names if path.exists())


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    before = descriptors(), native_threads()
    FRAMES_OPEN[0] = 0
    yield
    assert native_threads() == before[1]
    assert descriptors() <= before[0] + FRAMES_OPEN[0]


FRAMES_OPEN = [0]  # the test's own descriptors, which live until the process ends


def frame(nbytes: int, seed: int | None = None) -> MemoryFrame:
    FRAMES_OPEN[0] += 1
    return MemoryFrame(nbytes, None if seed is None else content(nbytes, seed))


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


def ended(running, timeout_s: float = 60.0) -> Outcome:
    assert running.wait(timeout_s)
    return running.outcome()


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_the_right_bytes_arrive_at_any_size(streams: int) -> None:
    sizes = [1, CHUNK - 1, CHUNK, CHUNK + 1, *random.Random(SEED).sample(range(2, 3_000_000), 8)]
    for seed, nbytes in enumerate(sizes):
        have, want = frame(nbytes, seed), frame(nbytes)
        with serving(have) as server:
            outcome = ended(fetch(want, source(server.port), streams=streams))
            outcome.check()
            assert want.bytes() == have.bytes(), f"{nbytes} bytes"
            assert outcome.sources["source"].received_bytes == nbytes == server.counters()["sent_bytes"]
            assert frame_bytes_at(SECRET, JOB, GENERATION, VERSION, source(server.port), 5) == nbytes


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


def test_a_chain_survives_a_dead_hop() -> None:
    have = frame(8_000_000, 5)
    hops = [frame(have.nbytes) for _ in range(3)]
    with serving(have) as head, serving() as one, serving() as two:
        to_one = fetch(hops[0], source(head.port), appear_s=5)
        one.offer_arriving(to_one)
        to_two = fetch(hops[1], source(one.port, "one"), source(head.port, "head"), appear_s=5)
        two.offer_arriving(to_two)
        to_three = fetch(hops[2], source(two.port, "two"), source(one.port, "one"), source(head.port, "head"))
        while one.counters()["sent_chunks"] < 5:
            time.sleep(0.001)
        one.close()
        for running, hop in ((to_one, hops[0]), (to_two, hops[1]), (to_three, hops[2])):
            ended(running).check()
            assert hop.bytes() == have.bytes()
        reports = to_two.outcome().sources
        assert reports["one"].received_bytes > 0
        assert reports["one"].received_bytes + reports["head"].received_bytes == have.nbytes


def test_a_chain_takes_one_copy_from_the_source() -> None:
    have = frame(4_000_000, 6)
    hops = [frame(have.nbytes) for _ in range(3)]
    with serving(have) as head, serving() as one, serving() as two:
        to_one = fetch(hops[0], source(head.port))
        one.offer_arriving(to_one)
        to_two = fetch(hops[1], source(one.port), source(head.port, "head"))
        two.offer_arriving(to_two)
        to_three = fetch(hops[2], source(two.port))
        for running, hop in ((to_three, hops[2]), (to_two, hops[1]), (to_one, hops[0])):
            ended(running).check()
            assert hop.bytes() == have.bytes()
        assert head.counters()["sent_bytes"] == have.nbytes


def test_stripes_come_from_all_and_go_on_without_one_that_dies() -> None:
    have = frame(12_000_000, 7)
    want = frame(have.nbytes)
    with serving(have) as a, serving(have) as b, serving(have) as c:
        running = fetch(want, source(a.port, "a"), source(b.port, "b"), source(c.port, "c"), at_once=3)
        while b.counters()["sent_chunks"] == 0 and not running.wait(0):
            time.sleep(0.001)
        b.close()
        outcome = ended(running)
    outcome.check()
    assert want.bytes() == have.bytes()
    shares = [report.received_bytes for report in outcome.sources.values()]
    assert sum(shares) == have.nbytes
    assert all(shares), f"every source gave something: {shares}"


def test_a_machines_own_agent_passes_its_memory(tmp_path: Path) -> None:
    have, want = frame(3_000_000, 8), frame(3_000_000)
    with serving(have, unix_path=str(tmp_path / "t")) as server:
        outcome = ended(fetch(want, Source("here", unix_path=str(tmp_path / "t"))))
        outcome.check()
        assert want.bytes() == have.bytes()
        assert server.counters()["passed_descriptors"] == 1
        assert server.counters()["sent_bytes"] == 0
    assert not (tmp_path / "t").exists()


def test_a_local_copy_with_another_checksum_is_refused(tmp_path: Path) -> None:
    have, want = frame(1_000_000, 8), frame(1_000_000)
    with serving(unix_path=str(tmp_path / "t")) as server:
        server.offer(GENERATION, VERSION, have.fd, have.nbytes, crc=1, chunk_bytes=CHUNK)
        outcome = ended(fetch(want, Source("here", unix_path=str(tmp_path / "t"))))
    assert outcome.state == "failed"
    assert set(outcome.sources["here"].reasons) == {"bad chunk"}


def test_the_fastest_of_several_networks_is_measured_once() -> None:
    have, want = frame(3_000_000, 9), frame(3_000_000)

    def slow(number: int, total: int, data: bytes) -> bytes:
        time.sleep(0.02)
        return data

    with serving(have) as server:
        proxy = Proxy(server.port, slow)
        routes = (Route("127.0.0.1", proxy.port), Route("127.0.0.1", server.port, "127.0.0.1"))
        try:
            outcome = ended(fetch(want, Source("s", (*routes, *route(1)))))
        finally:
            proxy.close()
    outcome.check()
    report = outcome.sources["s"]
    assert want.bytes() == have.bytes()
    assert report.route == f"127.0.0.1 -> 127.0.0.1:{server.port}" == str(routes[1])
    assert report.measured_bytes_per_s[str(routes[1])] > report.measured_bytes_per_s[str(routes[0])] > 0
    assert report.measured_bytes_per_s["127.0.0.1:1"] == 0


def test_a_fetch_can_be_cancelled_and_has_a_deadline() -> None:
    have, want = frame(1_000_000, 10), frame(1_000_000)
    with serving() as nothing, serving(have) as server:
        never = fetch(frame(1000), source(nothing.port), appear_s=30)
        assert not never.wait(0.1)
        never.cancel()
        assert ended(never, 5).state == "cancelled"

        proxy = Proxy(server.port, lambda number, total, data: time.sleep(0.05) or data)
        try:
            late = ended(fetch(want, source(proxy.port), deadline_s=0.3), 10)
        finally:
            proxy.close()
        with pytest.raises(DeadlineExceeded, match="deadline"):
            late.check()
        assert late.elapsed_s < 5


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


def test_an_event_loop_is_told_of_the_end() -> None:
    have, want = frame(1_000_000, 12), frame(1_000_000)
    with serving(have) as server:
        outcome = asyncio.run(asyncio.wait_for(fetch(want, source(server.port)).ended(), 30))
    outcome.check()
    assert want.bytes() == have.bytes()


def test_a_withdrawn_frame_is_read_by_nobody() -> None:
    have, want = frame(5_000_000, 13), frame(5_000_000)
    with serving() as server:
        offer = server.offer(GENERATION, VERSION, have.fd, have.nbytes, chunk_bytes=CHUNK)
        proxy = Proxy(server.port, lambda number, total, data: time.sleep(0.01) or data)
        try:
            running = fetch(want, source(proxy.port))
            while server.counters()["sent_chunks"] == 0:
                time.sleep(0.001)
            assert server.withdraw(offer, 5)
            sent = server.counters()["sent_chunks"]
            outcome = ended(running)
        finally:
            proxy.close()
        assert server.counters()["sent_chunks"] == sent
        assert outcome.state == "failed"


def test_wrong_arguments_are_clear_errors() -> None:
    small = frame(1000)
    with serving() as server:
        with pytest.raises(NativeError, match="16 to 4096 bytes"):
            fetch(small, source(server.port), secret=b"short")
        with pytest.raises(NativeError, match="needs a source"):
            fetch(small)
        with pytest.raises(NativeError, match="4 KiB to 16 MiB"):
            fetch(small, source(server.port), chunk_bytes=17)
        with pytest.raises(NativeError, match="holds 1000 bytes"):
            server.offer(1, 1, small.fd, 2000)
    outcome = ended(fetch(small, Source("named", (Route("localhost", 1),))))
    assert "no IPv4 or IPv6 address" in outcome.sources["named"].last_error
