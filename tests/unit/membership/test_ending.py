"""The last version, draining, and saving before the end."""

from __future__ import annotations

from coordinator_story import Story

from hpresil.membership import messages as m


def test_members_are_released_when_all_have_reported_the_last_version() -> None:
    story = Story(workers=2, spares=1).begins(version=9)
    assert story.finished(10, 0) == []
    story.finished(10, 1)
    assert story.end.status == 0
    assert sorted(story.who_got(m.Release)) == [0, 1, 2]
    assert story.who_got(m.Stop) == []


def test_a_member_that_dies_after_the_others_finished_ends_nothing_but_itself() -> None:
    story = Story(workers=2, spares=1).begins(version=9)
    story.finished(10, 0)
    story.lost(1)
    assert story.end.status == 0
    assert story.starts() == []


def test_a_finished_member_stays_a_source_for_those_behind() -> None:
    story = Story(workers=3, spares=1).begins(version=9)
    story.finished(10, 0)
    story.lost(2)
    assert story.view == [0, 1]
    story.reports(0, 10, finished=True)
    story.reports(1, 9, holding=True)
    assert story.decision.finished
    assert story.decision.roll == [1]
    story.finished(10, 1)
    assert story.end.status == 0


def test_nobody_joins_once_a_member_has_finished() -> None:
    story = Story(workers=2).begins(version=9)
    story.lost(1)
    story.everybody_reports(9)
    story.ready(2)
    story.finished(10, 0)
    assert story.end.status == 0
    story = Story(workers=3).begins(version=9)
    story.lost(2)
    story.everybody_reports(9)
    story.ready(3)
    story.finished(10, 0)
    assert story.rehearsed(3) == []


def test_a_newcomer_promoted_before_the_end_was_known_copies_the_last_version() -> None:
    story = Story(workers=2, spares=1).begins(version=9)
    story.lost(1)
    assert story.view == [0, 2]
    story.reports(0, 10, finished=True)
    story.reports(2)
    assert story.decision.finished
    assert story.decision.sources == {2: 0}
    story.restored(2, 10)
    story.finished(10, 2)
    assert story.end.status == 0


def test_the_minimum_does_not_hold_back_members_that_are_done() -> None:
    story = Story(workers=3, min_workers=3).begins(version=9)
    story.finished(10, 0)
    story.lost(2)
    assert story.view == [0, 1]
    story.reports(0, 10, finished=True)
    story.reports(1, 10, finished=True)
    assert story.end.status == 0


def test_loops_of_different_lengths_are_an_error() -> None:
    story = Story(workers=2).begins(version=9)
    story.finished(10, 0)
    story.finished(11, 1)
    story.saved(1, 11)
    assert story.end.status == 1
    assert "worker 0 at version 10, worker 1 at version 11" in story.end.reason


def test_a_member_that_never_reaches_the_end_is_fenced() -> None:
    story = Story(workers=2, report_timeout_s=60).begins(version=9)
    story.after(1000)
    story.finished(10, 0)
    assert story.after(59) == []
    story.after(1)
    assert list(story.fences()) == [1]
    assert story.end.status == 0


def test_draining_saves_once_and_then_releases() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.drain()
    assert story.who_got(m.Drain) == [0, 1]
    assert story.drain() == []
    story.finished(6, 0, 1, drained=True)
    assert story.told == [m.Deliver(to=0, what=m.Save(directory="/run/checkpoints"))]
    story.saved(0, 6)
    assert story.end.status == 0
    assert story.end.saved == "/run/checkpoints/6"
    assert story.to(1, m.Release) == m.Release(drained=True)


def test_a_drained_job_whose_first_saver_fails_asks_the_next() -> None:
    story = Story(workers=3, save_timeout_s=10).begins(version=5)
    story.drain()
    story.finished(6, 0, 1, 2, drained=True)
    story.saved(0, 6, error="disk full")
    assert story.who_got(m.Save) == [1]
    story.lost(1)
    assert story.who_got(m.Save) == [2]
    assert story.saved(0, 6) == []
    story.saved(2, 6)
    assert story.end.status == 0


def test_a_drained_job_that_nobody_could_save_is_an_error() -> None:
    story = Story(workers=2, save_timeout_s=10).begins(version=5)
    story.drain()
    story.finished(6, 0, 1, drained=True)
    story.saved(0, 6, error="disk full")
    assert story.after(9) == []
    story.after(1)
    assert story.end.status == 1
    assert "worker 0: disk full; worker 1: has not saved within 10 s" in story.end.reason
    assert story.who_got(m.Release) == []


def test_a_loss_while_draining_shrinks_and_still_drains() -> None:
    story = Story(workers=2, spares=1, min_workers=2).begins(version=5)
    story.drain()
    story.lost(1)
    assert story.view == [0]
    assert story.starts() == []
    story.reports(0, 5)
    story.finished(6, 0, drained=True)
    assert story.who_got(m.Save) == [0]


def test_newcomers_hear_of_a_drain_that_came_before_them() -> None:
    story = Story(workers=2, spares=1)
    story.agent_joins()
    story.ready(0, 1, 2)
    story.drain()
    story.lost(1)
    assert story.view == [0, 2]
    assert story.who_got(m.Drain) == [2]


def test_draining_while_waiting_lets_the_survivors_end_the_step() -> None:
    story = Story(workers=2, min_workers=2).begins(version=5)
    story.lost(1)
    assert story.state.phase == "waiting"
    story.drain()
    assert story.view == [0]
    story.reports(0, 5)
    story.finished(6, 0, drained=True)
    story.saved(0, 6)
    assert story.end.status == 0


def test_a_member_that_finishes_while_the_others_wait_ends_the_waiting() -> None:
    story = Story(workers=3, min_workers=3).begins(version=9)
    story.lost(2)
    assert story.state.phase == "waiting"
    story.finished(10, 0)
    assert story.view == [0, 1]


def test_nothing_happens_after_the_end() -> None:
    story = Story(workers=1).begins(version=5)
    story.finished(6, 0)
    over = story.state
    assert story.lost(0) == []
    assert story.drain() == []
    assert story.after(1e6) == []
    assert story.state is over


def test_a_job_without_a_place_to_save_ends_without_saving() -> None:
    story = Story(workers=1, save_directory="").begins(version=5)
    story.drain()
    story.finished(6, 0, drained=True)
    assert story.end.status == 0
    assert story.end.saved == ""


def test_what_is_broken_beside_the_state_ends_the_job_after_a_save() -> None:
    story = Story(workers=2).begins(version=5)
    story.happens(m.Broken(reason="the record cannot be written", worker=1, step=5, sound=True))
    assert story.who_got(m.Save) == [0]
    assert story.happens(m.Broken(reason="again", sound=True)) == []
    story.saved(0, 5)
    assert (story.end.status, story.end.worker, story.end.step) == (1, 1, 5)
    assert (story.end.reason, story.end.saved) == ("the record cannot be written", "/run/checkpoints/5")


def test_a_broken_state_is_not_saved() -> None:
    story = Story(workers=2).begins(version=5)
    story.happens(m.Broken(reason="Divergence", worker=1, step=5))
    assert story.end.saved == ""


def test_nothing_to_save_does_not_hold_up_the_end() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.happens(m.Broken(reason="the journal cannot be written", sound=True))
    assert story.end.status == 1
