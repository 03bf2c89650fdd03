"""Versions move between agents: the right bytes, from whoever still lives, once, and always to an end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpresil.base.errors import DeadlineExceeded, NativeError
from hpresil.snapshot.transfer import Route, Source, frame_bytes_at
from transfer_case import (
    CHUNK,
    GENERATION,
    JOB,
    SECRET,
    SEED,
    VERSION,
    Proxy,
    ended,
    fetch,
    frame,
    nothing_leaking,
    route,
    serving,
    source,
)


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    with nothing_leaking():
        yield


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
    have = frame(48_000_000, 7)
    want = frame(have.nbytes)
    with serving(have) as a, serving(have) as b, serving(have) as c:
        running = fetch(want, source(a.port, "a"), source(b.port, "b"), source(c.port, "c"), at_once=3)
        while not all(report.received_bytes for report in running.outcome().sources.values()):
            assert not running.wait(0.001), "it ended before every source had given something"
        b.close()
        outcome = ended(running)
    outcome.check()
    assert want.bytes() == have.bytes()
    assert sum(report.received_bytes for report in outcome.sources.values()) == have.nbytes


def test_a_machines_own_agent_passes_its_memory(tmp_path: Path) -> None:
    have, want = frame(3_000_000, 8), frame(3_000_000)
    with serving(have, unix_path=str(tmp_path / "t")) as server:
        outcome = ended(fetch(want, Source("here", unix_path=str(tmp_path / "t"))))
        outcome.check()
        assert want.bytes() == have.bytes()
        assert server.counters()["passed_descriptors"] == 1
        assert server.counters()["sent_bytes"] == 0
    assert not (tmp_path / "t").exists()


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
