"""The decision as a function of the reports."""

from __future__ import annotations

import pytest

from hpresil.membership.decision import Known, Undecided, decide
from hpresil.membership.messages import Decision, Report


def report(
    version: int, phase: str = "", *, kept: tuple[int, ...] = (), done: tuple[int, ...] = (), **more: bool
) -> Report:
    phase = phase or ("computing" if version >= 0 else "empty")
    return Report(generation=4, version=version, phase=phase, kept=list(kept), done=list(done), **more)


def decided(reports: dict[int, Report], **known: object) -> Decision:
    outcome = decide(4, list(reports), reports, Known(**{"slots": 4, "newest": 9, **known}))  # type: ignore[arg-type]
    assert isinstance(outcome, Decision), outcome
    assert sorted(slot for carried in outcome.slots for slot in carried) == [0, 1, 2, 3]
    assert len(outcome.slots) == len(reports)
    return outcome


def undecided(reports: dict[int, Report], **known: object) -> Undecided:
    outcome = decide(4, list(reports), reports, Known(**{"slots": 4, "newest": 9, **known}))  # type: ignore[arg-type]
    assert isinstance(outcome, Undecided), outcome
    return outcome


def test_the_target_is_the_highest_version() -> None:
    made = decided({7: report(-1), 3: report(8, "holding"), 5: report(9)})
    assert (made.generation, made.target) == (4, 9)
    assert made.sources == {7: 5}
    assert made.roll == [3]


def test_the_slots_of_an_older_step_are_not_kept() -> None:
    made = decided({0: report(8, "holding", kept=(3,), done=(3,)), 1: report(9)})
    assert made.slots == [[0, 1], [2, 3]]


def test_kept_slots_stay_and_the_missing_go_to_who_has_least_to_do() -> None:
    made = decided({0: report(9, kept=(0, 1)), 1: report(9, kept=(2,), done=(2,))})
    assert made.slots == [[0, 1], [2, 3]]


def test_of_two_that_keep_a_slot_who_has_it_done_keeps_it() -> None:
    made = decided({0: report(9, kept=(1, 2)), 1: report(9, kept=(2, 3), done=(2,))})
    assert 2 in made.slots[1]
    assert 2 not in made.slots[0]


def test_slots_that_do_not_exist_are_dropped() -> None:
    made = decided({0: report(9, kept=(3, 99, -2), done=(99,))})
    assert made.slots == [[0, 1, 2, 3]]


def test_a_source_to_avoid_is_used_if_it_is_the_only_one() -> None:
    reports = {0: report(9), 1: report(9), 2: report(-1)}
    assert decided(reports, avoid=(0,)).sources == {2: 1}
    assert decided(reports, avoid=(0, 1)).sources == {2: 0}


def test_the_loop_ends_if_a_holder_of_the_target_has_left_it() -> None:
    assert decided({0: report(9, finished=True), 1: report(8, "holding")}).finished
    assert not decided({0: report(9), 1: report(8, "holding", finished=True)}).finished


@pytest.mark.parametrize("behind", [report(8), report(7, "holding"), report(0)])
def test_a_member_that_can_not_be_behind_breaks_the_contract(behind: Report) -> None:
    assert undecided({0: behind, 1: report(9)}).kind == "broken"


def test_no_state_and_no_step_begins_with_rank_0() -> None:
    made = decided({5: report(-1), 6: report(-1)}, newest=-1, pristine=frozenset({5}))
    assert made.initial
    assert made.target == 0
    assert made.sources == {6: 5}


def test_no_state_and_a_spoiled_rank_0_waits_for_a_fresh_worker() -> None:
    reports = {5: report(-1), 6: report(-1)}
    assert undecided(reports, newest=0, pristine=frozenset({6})).kind == "unseeded"


def test_no_state_after_a_step_or_a_resume_comes_from_the_agents_frame_or_is_lost() -> None:
    reports = {5: report(-1), 6: report(-1)}
    fresh = frozenset({5, 6})
    assert decided(reports, newest=3, pristine=fresh, sealed=2).sources == {5: -1, 6: -1}
    assert undecided(reports, newest=3, pristine=fresh).kind == "lost"
    assert undecided(reports, newest=-1, resumed=True, pristine=fresh).kind == "lost"
