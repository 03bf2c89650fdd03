"""User code that raises or exits: what is retried, and what ends the job."""

from __future__ import annotations

import pytest
from coordinator_story import Story

from hpresil.membership import messages as m


def test_one_exception_is_left_to_the_worker_which_tries_again() -> None:
    story = Story(workers=2).begins(version=5)
    assert story.failed(0, 5, 2) == []
    assert story.failed(0, 5, 3) == []
    assert story.failed(1, 6, 2) == []


@pytest.mark.parametrize("second", [0, 1])
def test_the_second_exception_at_the_same_slot_is_the_users_bug(second: int) -> None:
    story = Story(workers=2).begins(version=5)
    story.failed(0, 5, 2)
    story.failed(second, 5, 2)
    assert story.who_got(m.Save) == [0]
    assert story.who_got(m.Stop) == []
    story.saved(0, 5)
    end = story.end
    assert (end.status, end.worker, end.step, end.slot) == (1, second, 5, 2)
    assert end.traceback == "Traceback: x"
    assert end.saved == "/run/checkpoints/5"
    assert sorted(story.who_got(m.Stop)) == [0, 1]


def test_a_failure_followed_by_the_exit_it_announced_counts_once() -> None:
    story = Story(workers=2, spares=2).begins(version=5)
    story.failed(0, 5, 2, kind="memory", retry=False)
    story.lost(0, "exited", 1, step=5, slot=2, armed=True)
    assert story.view == [2, 1]
    story.everybody_reports(5)
    assert story.state.phase == "training"


def test_out_of_memory_twice_at_one_slot_saves_with_a_member_that_stays() -> None:
    story = Story(workers=2).begins(version=5)
    story.failed(0, 5, 2)
    story.failed(0, 5, 2, kind="memory", retry=False)
    assert story.who_got(m.Save) == [1]
    story.saved(1, 5, error="disk full")
    assert story.who_got(m.Save) == [0]


@pytest.mark.parametrize("kind", ["nonfinite", "usage"])
def test_a_loss_that_is_no_number_and_misuse_stop_at_once(kind: str) -> None:
    story = Story(workers=2).begins(version=5)
    story.failed(1, 5, 2, kind=kind, retry=False)
    story.saved(0, 5)
    assert story.end.status == 1
    assert "step 5, slot 2" in story.end.reason
    assert "worker 1 (rank 1)" in story.end.reason


@pytest.mark.parametrize("status", [0, 1])
def test_exiting_twice_at_the_same_slot_is_the_users_bug(status: int) -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.lost(0, "exited", status, step=5, slot=1, armed=True)
    assert story.view == [2, 1]
    story.everybody_reports(5)
    story.everybody_restores()
    story.lost(2, "exited", status, step=5, slot=1, armed=True)
    story.saved(1, 5)
    assert story.end.status == 1
    assert (story.end.step, story.end.slot) == (5, 1)


def test_deaths_by_signal_and_exits_outside_of_steps_are_nobodys_bug() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    for _ in range(4):
        victim = story.state.members[0]
        story.lost(victim, "killed", -9, step=5, slot=1, armed=True)
        story.everybody_reports(5)
        story.everybody_restores()
        story.ready(story.state.next_worker - 1)
        story.rehearsed(story.state.next_worker - 1)
        assert story.state.phase == "training"
    story.lost(story.state.members[0], "exited", 0, step=6, slot=-1)
    story.everybody_reports(5)
    assert story.state.phase == "training"


def test_a_state_spoiled_after_the_commit_is_copied_from_a_peer_once() -> None:
    story = Story(workers=2).begins(version=5)
    discarded = m.StateDiscarded(step=5, error="KeyError: y", traceback="Traceback: y")
    story.says(1, discarded)
    assert story.view == [0, 1]
    story.reports(0, 6)
    story.reports(1)
    assert story.decision.sources == {1: 0}
    story.restored(1, 6)
    story.says(0, discarded)
    assert story.who_got(m.Save) == [1]
    story.saved(1, 6)
    assert story.end.status == 1
    assert story.end.traceback == "Traceback: y"


def test_a_state_spoiled_on_the_only_worker_stops_the_job() -> None:
    story = Story(workers=1).begins(version=5)
    story.says(0, m.StateDiscarded(step=5, error="KeyError: y", traceback="Traceback: y"))
    assert story.end.status == 1
    assert "no other worker has a copy" in story.end.reason
    assert story.end.saved == ""


def test_a_failing_rehearsal_of_a_spare_is_no_failure_of_a_step() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.failed(2, 5, 2, retry=False)
    story.failed(2, 5, 2, retry=False)
    assert story.state.phase == "training"


def test_a_failure_while_the_job_stops_changes_nothing() -> None:
    story = Story(workers=2).begins(version=5)
    story.failed(0, 5, 2)
    story.failed(0, 5, 2)
    assert story.failed(1, 5, 4, kind="nonfinite", retry=False) == []
    assert story.lost(1) == []
    story.lost(0)
    assert story.end.status == 1
    assert "worker 0: was lost (killed)" in story.end.reason
