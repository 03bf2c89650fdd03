"""Communicators over the real NCCL: several ranks on one device, each as if on a machine of its own."""

from __future__ import annotations

import signal

import pytest

from hpresil import native
from hpresil.base.errors import NativeError
from nccl_calls import (
    bulk_here,
    gated_step_here,
    graph_here,
    shrink_here,
    suspend_here,
    transfer_here,
    wait_for_the_dead,
)
from rank_pool import RankPool

SIZE = 3
LONG_S = 240.0
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def pool():
    try:
        native.Nccl.open()
    except NativeError as error:
        pytest.skip(f"no NCCL here: {error}")
    ranks = RankPool()
    ranks.need(SIZE)
    yield ranks
    ranks.close()


def ran(pool, function, **more):
    pool.need(SIZE)
    generation = pool.generation() * 10  # a test may go through several
    for rank in range(SIZE):
        pool.start(rank, function, rank=rank, size=SIZE, generation=generation, **more)
    said = [pool.hear(rank, LONG_S) for rank in range(SIZE)]
    assert [answer[0] for answer in said] == ["done"] * SIZE, said
    return [answer[1] for answer in said]


def test_three_communicators_are_initialised_at_once_and_warmed(pool) -> None:
    for version, features, sums, closed in ran(pool, bulk_here):
        print(f"NCCL {version}: {features}")
        assert sums == [[float(sum(range(SIZE)) + SIZE * place)] for place in range(3)]
        assert closed == [True] * 3


@pytest.mark.parametrize("holders", [[0], [1], [0, 2], [0, 1]])
def test_a_transfer_plan_brings_the_bytes(pool, holders) -> None:
    assert ran(pool, transfer_here, holders=holders) == [(True, True)] * SIZE


def test_a_stand_in_is_suspended_and_resumed(pool) -> None:
    for answer in ran(pool, suspend_here):
        assert answer in ("no suspension", ([3.0], [3.0]))


def test_a_communicator_shrinks_and_grows_back(pool) -> None:
    answers = ran(pool, shrink_here)
    for rank, (small, large) in enumerate(answers):
        assert small in ("no shrink", None if rank == SIZE - 1 else [1.0])
        assert large in (None, [3.0])


def test_the_device_steps_only_with_every_vote(pool) -> None:
    assert ran(pool, gated_step_here, votes=True) == [(True, True, 1.0, True)] * SIZE
    generation = pool.generation() * 10
    for rank in range(SIZE):
        arguments = {"rank": rank, "size": SIZE, "generation": generation, "votes": rank != 1}
        pool.start(rank, gated_step_here, **arguments)
    for rank in range(SIZE):
        said = pool.hear(rank, LONG_S)
        assert said == ("done", (False, False, 0.0, True))


def test_a_graph_with_a_sum_is_captured_again_in_the_next_generation(pool) -> None:
    first, second = float(sum(range(SIZE))), float(sum(range(SIZE)) + SIZE)
    for sums, doubled, dropped, closed in ran(pool, graph_here):
        assert sums == [[first]] * 3 + [[second]] * 3
        assert doubled == [[2 * first], [2 * second]]
        assert (dropped, closed) == ([1, 1], [True, True])


def test_a_sum_with_a_killed_peer_ends_and_is_aborted(pool) -> None:
    generation = pool.generation() * 10
    for rank in range(SIZE):
        pool.start(rank, wait_for_the_dead, rank=rank, size=SIZE, generation=generation)
    for rank in range(SIZE):
        assert pool.hear(rank, LONG_S) == ("built",)
    pool.signal(SIZE - 1, signal.SIGKILL)
    for rank in range(SIZE - 1):
        said, took, ended, reason = pool.hear(rank, LONG_S)[1]
        print(f"rank {rank}: {took:.3f} s, {said}")
        assert "a sum with the dead" in said
        assert (ended, reason) == (True, "rank was killed")
    assert ran(pool, bulk_here)[0][2] == [[3.0], [6.0], [9.0]], "a new generation works in the same processes"
