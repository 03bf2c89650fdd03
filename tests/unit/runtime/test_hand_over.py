"""Handing over, as the worker's step machine and the vote's numbers see it."""

from __future__ import annotations

from dataclasses import replace

from hpresil.membership.messages import Decision
from hpresil.runtime import step_machine as sm
from hpresil.runtime.statistics import SlotNumbers, pack, unpack

TRAINING = sm.StepState(
    worker=1,
    slots=2,
    version=5,
    phase="computing",
    installed=3,
    promised=3,
    decided=3,
    members=(0, 1),
    assigned=frozenset({1}),
    carried=((0,), (1,)),
)


def test_a_view_that_leaves_a_worker_out_ends_what_it_holds() -> None:
    after, reports = sm.on_view(TRAINING, 4, (0,))
    assert (after.phase, after.version, after.held, after.rank) == ("empty", -1, -1, None)
    assert reports == [], "nobody asks it for a report"


def test_such_a_worker_copies_the_state_when_it_is_needed_again() -> None:
    left, _ = sm.on_view(TRAINING, 4, (0,))
    again, (report,) = sm.on_view(left, 5, (0, 1))
    assert (report.version, report.phase) == (-1, "empty")
    decision = Decision(generation=5, target=9, sources={1: 0}, roll=[], slots=[[0], [1]])
    assert sm.next_action(sm.on_decision(again, decision)) == sm.CopyState(5, 9, 0)


def test_a_worker_that_is_left_out_while_it_commits_has_nothing_after_its_block() -> None:
    committing, reports = sm.on_view(replace(TRAINING, phase="committing"), 4, (0,))
    assert (committing.phase, reports) == ("committing", [])
    after, reports = sm.block_ended(committing)
    assert (after.phase, after.version, reports) == ("empty", -1, [])


def test_after_a_hand_over_a_newer_view_finds_the_step_untouched() -> None:
    stopped, _ = sm.block_ended(sm.handed_over(replace(TRAINING, phase="committing"), 3))
    assert (stopped.version, stopped.handed, stopped.decided) == (6, 3, 3)
    _, (report,) = sm.on_view(stopped, 4, (1,))
    assert (report.version, report.kept, report.done) == (6, [], [])


def test_the_wish_of_one_reaches_all_and_is_not_the_wish_to_leave() -> None:
    numbers = {0: SlotNumbers(weight=1.0), 1: SlotNumbers(weight=2.0)}
    one = pack(2, {0: numbers[0]}, [True], [], drain=False, hand_over=True)
    other = pack(2, {1: numbers[1]}, [False], [], drain=False, hand_over=False)
    found = unpack(one + other, 2, 1, 0)
    assert (found.hand_over, found.drain, found.used, found.weights) == (True, False, [True], [1.0, 2.0])
