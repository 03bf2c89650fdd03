"""Too few workers to train, and groups that fail although nobody is lost: who waits, and how long."""

from __future__ import annotations

from coordinator_story import Story

from hpresil.membership import messages as m


def test_fewer_than_the_minimum_wait_for_a_replacement() -> None:
    story = Story(workers=2, min_workers=2).begins(version=5)
    story.lost(1)
    assert story.who_got(m.View) == []
    assert story.state.phase == "waiting"
    story.ready(2)
    assert story.who_got(m.StandBy) == [2]
    story.rehearsed(2)
    assert story.view == [0, 2]


def test_waiting_too_long_saves_and_stops() -> None:
    story = Story(workers=2, min_workers=2, min_workers_timeout_s=30).begins(version=5)
    story.lost(1)
    story.ready(2)
    assert story.after(29) == []
    story.after(1)
    assert story.who_got(m.Save) == [0]
    story.saved(0, 5)
    assert story.end.status == 1
    assert "1 of at least 2 workers" in story.end.reason
    assert story.who_got(m.Stop) == [0, 2]


def test_waiting_for_nobody_ends_at_once() -> None:
    story = Story(workers=2, min_workers=2, max_restarts=0).begins(version=5)
    story.lost(1)
    assert story.who_got(m.Save) == [0]
    story.saved(0, 5)
    assert "no worker can be started any more" in story.end.reason


def test_who_has_committed_most_saves_while_waiting() -> None:
    story = Story(workers=3, min_workers=3, min_workers_timeout_s=30).begins(version=5)
    story.lost(2)
    story.committed(5, 1)
    story.after(30)
    assert story.who_got(m.Save) == [1]


def test_one_group_failure_without_a_loss_builds_a_new_group() -> None:
    story = Story(workers=2, group_grace_s=2).begins(version=5)
    story.says(1, m.GroupLost(generation=1, error="connection reset"))
    assert story.after(1) == []
    story.after(1)
    assert story.view == [0, 1]
    assert "connection reset" in story.state.reason


def test_a_group_failure_that_a_loss_explains_builds_one_new_group_only() -> None:
    story = Story(workers=2, group_grace_s=2).begins(version=5)
    story.says(0, m.GroupLost(generation=1, error="connection reset"))
    story.lost(1)
    assert story.view == [0]
    story.reports(0, 5)
    assert story.after(10) == []


def test_groups_that_fail_again_and_again_stop_the_job() -> None:
    story = Story(workers=2, group_grace_s=2).begins(version=5)
    for _ in range(5):
        story.says(1, m.GroupLost(generation=story.state.generation, error="reset"))
        story.after(2)
        story.everybody_reports(5)
        assert story.state.phase == "training"
    story.says(1, m.GroupLost(generation=story.state.generation, error="reset"))
    story.after(2)
    story.saved(0, 5)
    assert story.end.status == 1
    assert "6 groups failed" in story.end.reason
