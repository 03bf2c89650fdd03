"""Who trains next."""

from __future__ import annotations

from hpresil.elastic.policy import Policy, Situation


def choose(
    *seats: int | None, ready: tuple[int, ...] = (), wanted: int = 3, minimum: int = 1, closing: bool = False
) -> tuple[int, ...]:
    situation = Situation(seats=seats, ready=ready, wanted=wanted, minimum=minimum, closing=closing)
    choice = Policy().choose(situation)
    assert choice.reason
    return choice.members


def test_a_spare_takes_the_lost_rank() -> None:
    assert choose(0, None, 2, ready=(7, 8)) == (0, 7, 2)


def test_without_a_spare_ranks_close_up() -> None:
    assert choose(None, 1, 2) == (1, 2)


def test_a_small_group_grows_at_its_end_up_to_the_size_wanted() -> None:
    assert choose(4, ready=(7, 8, 9)) == (4, 7, 8)


def test_a_lost_rank_is_filled_before_the_group_grows() -> None:
    assert choose(None, 2, ready=(7, 8)) == (7, 2, 8)


def test_too_few_are_no_group() -> None:
    assert choose(0, None, minimum=2) == ()
    assert choose(None, None) == ()


def test_who_leaves_the_loop_takes_nobody_in_and_needs_no_minimum() -> None:
    assert choose(0, None, ready=(7,), minimum=3, closing=True) == (0,)


def test_the_reason_says_what_changes() -> None:
    situation = Situation(seats=(0, None, None), ready=(7,), wanted=3, minimum=1)
    reason = Policy().choose(situation).reason
    assert reason == "worker 7 takes rank 1; rank 2 has no substitute, its slots move"
