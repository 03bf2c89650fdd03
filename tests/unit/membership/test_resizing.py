"""Resizing the group, told to the pure machine."""

from __future__ import annotations

import pytest
from nodes_story import Nodes

from hpresil.membership import messages as m


def training(workers: int, *, places: int = 4, **settings: int) -> Nodes:
    return Nodes(workers, nnodes=1, places=places, **settings).trains("a")


def test_a_larger_group_is_started_and_each_joins_when_it_is_ready() -> None:
    story = training(2)
    answer = story.asks_for(4)
    assert (answer.text, answer.done) == ("the group is being resized from 2 to 4 workers", False)
    starts = [action for action in story.told if isinstance(action, m.StartWorker)]
    assert [start.restart for start in starts] == [False, False]
    for size, start in enumerate(starts, 3):
        story.ready(start.worker)
        story.rehearsed(start.worker)
        assert len(story.view) == size
        story.everybody_reports(0)
        story.everybody_restores()
    assert story.answers[0].text == "the group has 4 workers"
    assert story.answers[0].done
    assert story.state.restarts == 0


def test_a_smaller_group_hands_over_and_the_others_are_released() -> None:
    story = training(4)
    zero, one, two, three = story.state.members
    story.asks_for(2)
    assert story.who_got(m.HandOver) == [zero, one, two, three]
    story.hand_over(5)
    assert story.view == [zero, one]
    assert sorted(story.who_got(m.Release)) == [two, three]
    story.everybody_reports(5)
    assert story.answers == []
    story.leaves(two, three)
    assert story.answers[0].text == "the group has 2 workers"
    assert story.state.losses == ()
    assert story.starts() == []


def test_members_fill_an_empty_reserve_and_can_come_back() -> None:
    story = training(3, places=3, spares=1, max_restarts=0)
    zero, one, two = story.state.members
    story.asks_for(1)
    story.hand_over(5)
    assert story.view == [zero]
    assert story.who_got(m.Release) == [one]
    assert story.state.workers[two].phase == "spare"
    assert two in story.who_got(m.View), "it must know that what it holds is nothing any more"
    story.everybody_reports(5)
    story.leaves(one)
    story.asks_for(2, request=2)
    assert story.view == [zero, two]
    assert story.state.workers[two].version == -1


def test_with_a_full_reserve_all_that_leave_are_released() -> None:
    story = training(2, spares=1)
    story.asks_for(1)
    story.hand_over(5)
    assert len(story.who_got(m.Release)) == 1
    assert len(story.state.workers) == 3


def test_a_ready_spare_joins_a_larger_group_at_once_and_is_replaced() -> None:
    story = training(2, spares=1)
    spare = next(w for w in story.state.workers if w not in story.state.members)
    story.asks_for(3)
    assert story.view[-1] == spare
    assert len(story.starts()) == 1


def test_processes_that_a_smaller_size_does_not_need_any_more_go_again() -> None:
    story = training(2)
    story.asks_for(4)
    starts = story.starts()
    story.asks_for(2, request=2)
    assert sorted(story.fences()) == sorted(starts)
    story.leaves(*starts)
    assert [(a.request, a.text) for a in story.answers] == [(2, "the group has 2 workers")]


def test_a_later_wish_replaces_an_earlier_one() -> None:
    story = training(2)
    story.asks_for(4)
    story.happens(m.ResizeRequested(node="a", request=2, workers=3))
    first, second = story.answers
    assert (first.request, first.failed) == (1, True)
    assert first.text == "not done: the group is resized to 3 instead"
    assert (second.request, second.done) == (2, False)


def test_the_size_it_has_is_there_at_once() -> None:
    story = training(2)
    story.asks_for(2)
    assert [answer.done for answer in story.answers] == [False, True]


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (1, "--min-workers 2"),
        (0, "--min-workers 2"),
        (-5, "--min-workers 2"),
        (5, "room for 4 workers (one node"),
        (9, "a job of 8 slots has work for at most 8 workers"),
    ],
)
def test_sizes_that_are_not_possible(size: int, why: str) -> None:
    story = training(2, min_workers=2)
    answer = story.asks_for(size)
    assert answer.failed
    assert why in answer.text
    assert story.state.wanted == 2


def test_a_lost_member_is_replaced_up_to_the_new_size_only() -> None:
    story = training(4, spares=1)
    story.asks_for(3)
    story.lost(story.state.members[1])
    assert len(story.view) == 3


def test_what_runs_after_a_release_takes_the_free_place_and_is_no_restart() -> None:
    story = training(4)
    story.asks_for(2)
    gone = story.state.members[2:]
    story.hand_over(5)
    story.everybody_reports(5)
    story.leaves(*gone)
    story.asks_for(4, request=2)
    starts = [action for action in story.told if isinstance(action, m.StartWorker)]
    assert [(start.index, start.restart) for start in starts] == [(2, False), (3, False)]


def test_a_wish_of_a_node_that_is_gone_is_not_answered() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    story.asks_for(2, node="b")
    story.loses("b")
    story.everybody_reports(0)
    assert story.answers == []
    assert story.state.wishes == ()
