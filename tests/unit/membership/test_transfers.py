"""Newcomers that cannot copy, sources that cannot serve, and everything that is late."""

from __future__ import annotations

from coordinator_story import Story

from hpresil.membership import messages as m


def recovering(**settings: object) -> Story:
    """Rank 2 was lost; the spare, worker 3, copies from worker 0."""
    story = Story(workers=3, spares=1, **settings).begins(version=5)
    story.lost(2)
    story.everybody_reports(5)
    assert story.decision.sources == {3: 0}
    return story


def copy_fails(story: Story) -> None:
    failed = m.RestoreFailed(generation=story.state.generation, frame=0, error="checksum")
    story.says(3, failed)


def test_a_failed_copy_is_tried_again_from_another_source() -> None:
    story = recovering()
    copy_fails(story)
    assert story.view == [0, 1, 3]
    story.everybody_reports(5)
    assert story.decision.sources == {3: 1}
    story.restored(3, 5)
    assert story.state.avoid == ()


def test_a_source_that_cannot_serve_is_replaced() -> None:
    story = recovering()
    story.says(0, m.ServeFailed(generation=story.state.generation, frame=0, error="no memory"))
    assert story.view == [0, 1, 3]
    story.everybody_reports(5)
    assert story.decision.sources == {3: 1}


def test_a_fourth_failure_in_a_row_stops_the_job() -> None:
    story = recovering()
    for _ in range(3):
        copy_fails(story)
        story.everybody_reports(5)
        assert story.state.phase == "training"
    copy_fails(story)
    story.saved(0, 5)
    assert story.end.status == 1
    assert "4 transfers in a row failed" in story.end.reason


def test_a_copy_of_the_wrong_version_is_a_failed_copy() -> None:
    story = recovering()
    story.restored(3, 4)
    assert story.view == [0, 1, 3]


def test_failures_of_older_generations_and_of_strangers_do_not_count() -> None:
    story = recovering()
    generation = story.state.generation
    old = m.RestoreFailed(generation=generation - 1, frame=0, error="x")
    assert story.says(3, old) == []
    assert story.says(1, m.RestoreFailed(generation=generation, frame=0, error="x")) == []
    assert story.says(1, m.ServeFailed(generation=generation, frame=0, error="x")) == []
    assert story.state.generation == generation


def test_a_damaged_frame_of_the_agent_is_tried_again_and_then_given_up() -> None:
    story = Story(workers=1, spares=1).begins(version=5)
    story.happens(m.FrameSealed(node="host", version=5, frame=0))
    story.lost(0)
    for _ in range(3):
        story.reports(1)
        assert story.decision.sources == {1: -1}
        story.says(1, m.RestoreFailed(generation=story.state.generation, frame=0, error="checksum"))
        assert story.view == [1]
    story.reports(1)
    story.says(1, m.RestoreFailed(generation=story.state.generation, frame=0, error="checksum"))
    assert story.end.status == 1


def test_a_newcomer_that_does_not_finish_its_copy_is_fenced() -> None:
    story = recovering(restore_timeout_s=20)
    assert story.after(19) == []
    story.after(1)
    assert list(story.fences()) == [3]
    assert story.view == [0, 1]


def test_a_member_that_does_not_report_is_fenced_once_the_state_is_safe() -> None:
    story = Story(workers=3, report_timeout_s=60).begins(version=5)
    story.lost(2)
    story.reports(1, 5)
    assert story.after(59) == []
    story.after(1)
    assert list(story.fences()) == [0]
    assert story.view == [1]
    assert story.reports(0, 5) == []


def test_nobody_is_fenced_while_no_holder_of_the_state_has_answered() -> None:
    story = Story(workers=3, report_timeout_s=60).begins(version=5)
    story.lost(2)
    story.after(60)
    assert story.fences() == {}
    story.saved(0, 5)
    assert story.end.status == 1
    assert "no member with state has reported" in story.end.reason


def test_a_replacement_that_never_becomes_ready_is_fenced_and_started_again() -> None:
    story = Story(workers=2, join_timeout_s=60).begins(version=5)
    story.lost(1)
    story.everybody_reports(5)
    assert story.after(59) == []
    story.after(1)
    assert list(story.fences()) == [2]
    assert story.starts() == []
    story.lost(2)
    assert story.starts() == [3]


def test_a_spare_stuck_in_its_rehearsal_is_fenced() -> None:
    story = Story(workers=2, join_timeout_s=60).begins(version=5)
    story.lost(1)
    story.everybody_reports(5)
    story.ready(2)
    story.after(60)
    assert list(story.fences()) == [2]


def test_a_copy_that_ends_while_the_others_wait_still_gives_somebody_who_can_save() -> None:
    story = Story(workers=3, spares=1, min_workers=3, max_restarts=0).begins(version=5)
    story.lost(2)
    story.everybody_reports(5)
    story.lost(1)
    assert story.who_got(m.Save) == [0]
    story.lost(0)
    assert story.who_got(m.Save) == [3]
    story.saved(3, 5)
    assert story.end.saved == "/run/checkpoints/5"


def test_a_worker_asked_in_vain_is_named() -> None:
    story = Story(workers=3, spares=1, min_workers=3, max_restarts=0).begins(version=5)
    story.lost(2)
    story.everybody_reports(5)
    story.lost(1)
    story.lost(0)
    story.saved(3, -1, error="no state to save")
    assert story.end.reason.startswith("StateLost: version 5")
    assert "worker 3: no state to save" in story.end.reason
