"""Ends of a transfer are killed at random: what completes is right, what breaks goes on or fails, no more.

HPRESIL_TRANSFER_KILLS=200 sets how many kills; a handful by default.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transfer_case import MemoryFrame, content, fetch, serving, source

KILLS = int(os.environ.get("HPRESIL_TRANSFER_KILLS", "6"))
PEER = Path(__file__).with_name("transfer_peer.py")
NBYTES = 12_000_000
SEED = 20261123


class Peer:
    """A process with one end of a transfer."""

    def __init__(self, what: str, seed: int, *ports: int) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[2] / "support"), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(PEER), what, str(seed), str(NBYTES), *map(str, ports)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.port = int(self.line())

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def descriptors_and_threads() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def resources_settle_at(before: tuple[int, int]) -> None:
    end = time.monotonic() + 10
    while descriptors_and_threads() > before:
        assert time.monotonic() < end, f"{before} before, {descriptors_and_threads()} now"
        time.sleep(0.01)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_source_that_is_killed_leaves_the_rest_to_another() -> None:
    chance = random.Random(SEED)
    data = content(NBYTES, 1)
    have, want = MemoryFrame(NBYTES, data), MemoryFrame(NBYTES)
    with serving(have) as other:
        before = descriptors_and_threads()
        broken = 0
        for _ in range(KILLS):
            with memoryview(want.mapping) as view:
                view[:] = bytes(NBYTES)
            peer = Peer("serve", 1)
            running = fetch(want, source(peer.port, "dies"), source(other.port, "lives"), streams=2, window=1)
            running.wait(chance.uniform(0, 0.05))
            peer.kill()
            assert running.wait(30)
            outcome = running.outcome()
            outcome.check()
            assert want.bytes() == data
            received = [report.received_bytes for report in outcome.sources.values()]
            assert sum(received) == NBYTES, "nothing that arrived travelled again"
            broken += received[1] > 0
            del running
        assert broken, "no kill came in time to break a transfer"
        other_counters = other.counters()
    assert other_counters["sent_bytes"] > 0
    resources_settle_at(before)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_source_that_is_killed_without_another_is_a_clear_failure_that_can_be_resumed() -> None:
    chance = random.Random(SEED + 1)
    data = content(NBYTES, 1)
    want = MemoryFrame(NBYTES)
    have = MemoryFrame(NBYTES, data)
    with serving(have) as later:
        for _ in range(max(1, KILLS // 3)):
            peer = Peer("serve", 1)
            running = fetch(want, source(peer.port), streams=2, window=1)
            running.wait(chance.uniform(0, 0.03))
            peer.kill()
            assert running.wait(30)
            outcome = running.outcome()
            assert outcome.state in ("done", "failed")
            if outcome.state == "failed":
                resumed = fetch(want, source(later.port), here=outcome.here)
                assert resumed.wait(30)
                resumed.outcome().check()
            assert want.bytes() == data


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_receiver_in_a_chain_that_is_killed_stops_neither_side() -> None:
    chance = random.Random(SEED + 2)
    data = content(NBYTES, 1)
    have, want = MemoryFrame(NBYTES, data), MemoryFrame(NBYTES)
    with serving(have) as head:
        before = descriptors_and_threads()
        for _ in range(KILLS):
            with memoryview(want.mapping) as view:
                view[:] = bytes(NBYTES)
            hop = Peer("fetch", 1, head.port)
            running = fetch(want, source(hop.port, "hop"), source(head.port, "head"), window=1, appear_s=2.0)
            running.wait(chance.uniform(0, 0.05))
            hop.kill()
            assert running.wait(30)
            running.outcome().check()
            assert want.bytes() == data
            del running
        end = time.monotonic() + 10
        while head.counters()["clients"]:
            assert time.monotonic() < end, "the server still holds connections of the dead"
            time.sleep(0.01)
    resources_settle_at(before)


def test_every_receiver_of_a_chain_of_processes_has_the_right_bytes() -> None:
    head = Peer("serve", 2)
    hops: list[Peer] = []
    try:
        for _ in range(3):
            hops.append(Peer("fetch", 2, *(peer.port for peer in reversed([head, *hops]))))
        assert [hop.line().strip() for hop in hops] == ["right"] * 3
    finally:
        for peer in [head, *hops]:
            peer.kill()
