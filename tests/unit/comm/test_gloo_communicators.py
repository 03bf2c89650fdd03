"""Many groups at once between real processes: built in parallel, warmed, given up with the first reason."""

import pytest

from communicator_calls import (
    abort_here,
    bulk_here,
    bulk_until_given_up,
    bulk_with_a_stranger,
    transfer_here,
)
from hpresil.comm.communicators import Reason
from hpresil.comm.transfer_plan import plan

PROMPT_S = 5.0  # far below every deadline; the machine may be busy


def each(pool, size, **more):
    pool.need(size)
    generation = pool.generation()
    return [{"rank": rank, "size": size, "generation": generation} | more for rank in range(size)]


@pytest.mark.parametrize("size", [1, 3])
def test_groups_built_at_once_do_not_mix_and_leave_nothing_behind(pool, size):
    names = [f"group {i}" for i in range(5)]
    for built, sums, closed, sockets, left in pool.run(bulk_here, each(pool, size, names=names)):
        assert built == names
        if size > 1:
            assert sums == [[float(sum(range(size)) + size * i)] * 3 for i in range(5)]
        assert closed == [True] * 5
        assert (sockets, left) == (0, [])


def test_what_is_being_built_is_given_up_with_its_reason(pool):
    (alone, *_) = each(pool, 2, names=["a", "b", "c"])
    pool.start(0, bulk_until_given_up, **alone)
    said, took = pool.result(0)
    assert "given up: a newer generation" in said
    assert took < PROMPT_S


def test_one_that_misses_its_deadline_ends_all_of_its_rank(pool):
    said, others = pool.run(bulk_with_a_stranger, each(pool, 2, names=["a", "b", "c"], alone="b"))
    assert said.startswith("rank 0 of generation")
    assert "b: " in said
    assert others == ["a", "c"]


def test_a_wait_ends_with_the_first_reason(pool):
    for number, arguments in enumerate(each(pool, 2)):
        pool.start(number, abort_here, **arguments)
    for number in range(2):
        assert pool.hear(number) == ("built",)
    said, reason, took, closed = pool.result(0)
    assert pool.result(1) is None
    assert "rank 1 hangs" in said
    assert (reason, closed) == ("rank 1 hangs", True)
    assert took < PROMPT_S


@pytest.mark.parametrize("holders", [[0], [1, 3], [0, 1, 2]])
def test_the_bytes_of_a_transfer_plan_arrive(pool, holders):
    size, nbytes = 4, 5000
    whole = [(0, nbytes)]
    takers = [rank for rank in range(size) if rank not in holders]
    made = plan(size, dict.fromkeys(holders, whole), dict.fromkeys(takers, whole), chunk_bytes=700)
    arguments = each(pool, size, made=made, nbytes=nbytes, holders=holders)
    assert pool.run(transfer_here, arguments) == [True] * size


def test_only_the_first_reason_counts() -> None:
    reason = Reason()
    assert reason.text == ""
    assert reason.say("first")
    assert not reason.say("second")
    assert reason.text == "first"
