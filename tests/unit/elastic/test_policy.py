"""Who trains next."""

from __future__ import annotations

from hpresil.elastic.policy import Policy, Situation


def choose(
    *seats: int | None,
    ready: tuple[int, ...] = (),
    wanted: int = 3,
    minimum: int = 1,
    closing: bool = False,
    leaving: tuple[int, ...] = (),
) -> tuple[int, ...]:
    situation = Situation(
        seats=seats, ready=ready, wanted=wanted, minimum=minimum, closing=closing, leaving=frozenset(leaving)
    )
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


def test_others_come_in_for_those_that_are_to_leave_while_these_are_still_there() -> None:
    assert choose(0, 1, 2, ready=(7, 8, 9), leaving=(1, 2)) == (0, 1, 2, 7, 8)


def test_a_lost_one_that_was_to_leave_anyway_is_not_replaced_twice() -> None:
    assert choose(0, 1, None, 7, ready=(8,), leaving=(), wanted=3) == (0, 1, 7)


def test_a_group_larger_than_wanted_takes_nobody_in() -> None:
    assert choose(0, None, 2, 3, ready=(7,), wanted=2) == (0, 2, 3)


def surplus(wanted: int, **nodes: str) -> list[int]:
    """Return who leaves; each worker is named by its node, by rank."""
    where = dict(enumerate(nodes["nodes"]))
    return Policy().surplus(sorted(where), where, wanted)


def test_the_highest_ranks_leave_a_group_on_one_node() -> None:
    assert surplus(2, nodes="aaaa") == [3, 2]
    assert surplus(4, nodes="aaaa") == []


def test_those_who_stay_are_spread_over_the_nodes() -> None:
    assert surplus(2, nodes="aabb") == [3, 1]
    assert surplus(2, nodes="aaab") == [2, 1]
    assert surplus(1, nodes="aabb") == [3, 1, 2]


def test_the_last_members_take_the_ranks_of_those_who_leave() -> None:
    assert Policy().without((10, 11, 12, 13), {11}) == (10, 13, 12)
    assert Policy().without((10, 11, 12, 13), {12, 13}) == (10, 11)
    assert Policy().without((10, 11, 12, 13), {10, 11}) == (12, 13)
    assert Policy().without((10, 11, 12, 13), {10, 13}) == (12, 11)
    assert Policy().without((10, 11), ()) == (10, 11)
