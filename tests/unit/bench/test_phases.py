"""What a fault cost is read from marks by the same rules for every contender."""

from __future__ import annotations

import pytest
from bench.recovery.phases import cost

WORKERS, STEPS, KILLED = 2, 16, 10


def step(t, step, rank, pid=None, world=WORKERS, loss="aa"):
    parts = {str(rank): loss}
    return {
        "t": t,
        "pid": pid or rank,
        "what": "step",
        "step": step,
        "rank": rank,
        "world": world,
        "parts": parts,
    }


def healthy(until):
    return [step(number, number, rank) for number in range(until) for rank in range(WORKERS)]


def said(t, what, pid, **more):
    return {"t": t, "pid": pid, "what": what, **more}


def the_cost(marks, fault_at=9.5):
    ordered = sorted(marks, key=lambda mark: mark["t"])
    return cost(ordered, fault_at, workers=WORKERS, left=WORKERS, steps=STEPS, fault_step=KILLED)


def test_a_replacement_in_place_redoes_nothing() -> None:
    rest = [
        step(2 + number, number, rank, pid=9 if rank else 0) for number in range(10, STEPS) for rank in (0, 1)
    ]
    found = the_cost([*healthy(10), *rest])
    assert found.healthy_step_s == 1
    assert found.first_full_group_step_s == 2.5
    assert (found.steps_redone, found.parts_lost, found.parts_repeated) == (0, 0, 0)


def test_a_restart_from_a_checkpoint_redoes_the_steps_since_then() -> None:
    marks = [
        said(9.6, "noticed", 0),
        said(12, "members", -1),
        said(14, "group", 5),
        said(15, "group", 6),
        said(17, "restored", 5, step=8),
    ]
    rest = [step(20 + number, number, rank, pid=5 + rank) for number in range(8, STEPS) for rank in (0, 1)]
    found = the_cost([*healthy(10), *marks, *rest])
    assert found.noticed_s == pytest.approx(0.1)
    assert (found.members_known_s, found.regrouped_s, found.restored_s) == (2.5, 5.5, 7.5)
    assert found.first_full_group_step_s == 28 - 9.5
    assert found.caught_up_s == 30 - 9.5
    assert (found.steps_redone, found.parts_lost) == (2, 0)


def test_what_a_dead_replica_did_not_compute_is_lost() -> None:
    alone = [step(number, number, 0, world=1) for number in range(10, 13)]
    both = [step(number, number, rank) for number in range(13, STEPS) for rank in (0, 1)]
    found = the_cost([*healthy(10), *alone, *both])
    assert found.parts_lost == 3
    assert found.first_full_group_step_s == found.caught_up_s == 13 - 9.5
    assert found.steps_redone == 0


def test_the_last_time_that_a_step_was_done_is_what_counts() -> None:
    rest = [step(20 + n, n, rank, pid=5 + rank, loss="bb") for n in range(8, STEPS) for rank in (0, 1)]
    found = the_cost([*healthy(10), *rest])
    assert {found.losses[8, 0], found.losses[9, 1], found.losses[7, 0]} == {"aa", "bb"}
    assert found.losses[8, 0] == "bb"


def test_a_part_that_two_members_put_into_one_step_is_repeated() -> None:
    rest = [step(2 + number, number, rank) for number in range(10, STEPS) for rank in (0, 1)]
    rest[-1] = {**rest[-1], "parts": {"0": "aa"}}
    found = the_cost([*healthy(10), *rest])
    assert (found.parts_lost, found.parts_repeated) == (1, 1)


def test_a_late_mark_of_the_step_before_is_no_step_of_the_full_group() -> None:
    late = [mark for mark in healthy(10) if (mark["step"], mark["rank"]) != (9, 0)] + [step(9.6, 9, 0)]
    rest = [step(2 + number, number, rank) for number in range(10, STEPS) for rank in (0, 1)]
    assert the_cost([*late, *rest]).first_full_group_step_s == 2.5


def test_too_few_healthy_steps_are_an_error_that_says_so() -> None:
    rest = [step(20 + number, number, rank) for number in range(10, STEPS) for rank in (0, 1)]
    with pytest.raises(ValueError, match="rank 0 left 1 marks of steps 6 to 9, not two"):
        the_cost([*healthy(7), *rest], fault_at=9.5)


def test_a_group_that_is_never_whole_again_is_an_error() -> None:
    alone = [step(number, number, 0, world=1) for number in range(10, STEPS)]
    with pytest.raises(ValueError, match="after the fault at step 10"):
        the_cost([*healthy(10), *alone])
