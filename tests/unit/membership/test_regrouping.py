"""Losses while the job trains: views, reports, decisions, shrinking and growing."""

from __future__ import annotations

from coordinator_story import Story

from hpresil.membership import messages as m


def test_a_lost_rank_goes_to_the_spare_which_copies_from_a_survivor() -> None:
    story = Story(workers=3, spares=1).begins(version=5)
    story.lost(1)
    assert story.view == [0, 3, 2]
    assert story.starts() == [4]
    story.reports(0, 5, kept=(0, 1, 2), done=(0,))
    story.reports(2, 5, kept=(6, 7), done=(6, 7))
    assert story.state.phase == "regrouping"
    story.reports(3)
    assert story.decision.target == 5
    assert story.decision.sources == {3: 0}
    assert story.decision.roll == []
    assert sorted(slot for carried in story.decision.slots for slot in carried) == list(range(8))
    assert set(story.decision.slots[0]) >= {0, 1, 2}
    assert set(story.decision.slots[2]) >= {6, 7}


def test_without_a_spare_the_ranks_close_up_and_the_replacement_joins_later() -> None:
    story = Story(workers=3).begins(version=5)
    story.lost(0)
    assert story.view == [1, 2]
    assert story.starts() == [3]
    story.everybody_reports(5)
    assert story.decision.slots == [[0, 1, 2, 3], [4, 5, 6, 7]]
    story.ready(3)
    assert story.who_got(m.StandBy) == [3]
    story.rehearsed(3)
    assert story.view == [1, 2, 3]
    story.everybody_reports(6)
    assert story.decision.sources == {3: 1}


def test_a_holding_member_one_version_behind_applies_its_gradient() -> None:
    story = Story(workers=3).begins(version=5)
    story.lost(2)
    story.reports(0, 6)
    story.reports(1, 5, holding=True, kept=(3, 4))
    assert story.decision.target == 6
    assert story.decision.roll == [1]
    assert story.decision.slots == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_members_that_all_hold_reduce_again_with_the_slots_they_have() -> None:
    story = Story(workers=2).begins(version=5)
    story.lost(1)
    story.reports(0, 5, holding=True, kept=(0, 1, 2, 3))
    assert story.decision.target == 5
    assert story.decision.roll == []
    assert story.decision.slots == [list(range(8))]


def test_a_member_behind_without_a_gradient_stops_the_job_after_the_newest_state_is_saved() -> None:
    story = Story(workers=3).begins(version=5)
    story.lost(2)
    story.reports(0, 5)
    story.reports(1, 6)
    assert story.who_got(m.Save) == [1]
    story.saved(1, 6)
    assert story.end.status == 1
    assert "worker 0 reports version 5 (computing)" in story.end.reason
    assert story.end.saved == "/run/checkpoints/6"


def test_a_second_loss_during_the_recovery_collects_new_reports() -> None:
    story = Story(workers=3, spares=1).begins(version=5)
    story.lost(1)
    story.reports(0, 5)
    first = story.state.generation
    story.lost(2)
    assert story.view == [0, 3]
    assert story.state.generation == first + 1
    assert story.reports(3, generation=first) == []
    assert story.reports(3) == []
    story.reports(0, 5)
    assert story.decision.generation == first + 1


def test_two_losses_at_once_are_two_views_and_one_decision() -> None:
    story = Story(workers=3, spares=2).begins(version=5)
    story.lost(0)
    assert story.view == [3, 1, 2]
    story.lost(2)
    assert story.view == [3, 1, 4]
    story.reports(1, 5)
    story.reports(3)
    story.reports(4)
    assert story.decision.sources == {3: 1, 4: 1}


def test_the_source_dying_while_it_serves_starts_over_with_another_source() -> None:
    story = Story(workers=3, spares=2).begins(version=5)
    story.lost(2)
    story.everybody_reports(5)
    assert story.decision.sources == {3: 0}
    story.lost(0)
    assert story.view == [4, 1, 3]
    story.everybody_reports(5)
    assert story.decision.sources == {4: 1, 3: 1}


def test_a_spare_that_dies_changes_no_view() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.lost(2)
    assert story.told == [m.StartWorker(worker=3, node="host", index=2, spare=True, restart=True)]
    assert story.state.generation == 1


def test_a_replacement_that_dies_while_starting_costs_a_restart_only() -> None:
    story = Story(workers=2, max_restarts=2).begins(version=5)
    story.lost(1)
    assert story.starts() == [2]
    story.lost(2, "exited", 1)
    assert story.starts() == [3]
    story.lost(3, "exited", 1)
    assert story.starts() == []
    story.everybody_reports(5)
    assert story.state.phase == "training"


def test_the_restart_budget_is_for_the_whole_job() -> None:
    story = Story(workers=2, spares=1, max_restarts=1).begins(version=5)
    story.lost(2)
    assert story.starts() == [3]
    story.lost(1)
    assert story.starts() == []
    assert story.view == [0]


def test_growing_waits_until_newcomers_have_their_state() -> None:
    story = Story(workers=3).begins(version=5)
    story.lost(1)
    story.lost(2)
    story.everybody_reports(5)
    story.ready(3, 4)
    story.rehearsed(3)
    assert story.view == [0, 3]
    story.everybody_reports(5)
    assert story.rehearsed(4) == []
    story.restored(3, 5)
    assert story.view == [0, 3, 4]


def test_reports_of_strangers_old_generations_and_the_lost_do_not_count() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.lost(1)
    generation = story.state.generation
    assert story.reports(1, 5) == []
    assert story.reports(0, 5, generation=generation - 1) == []
    assert story.reports(0, 5, generation=generation + 1) == []
    assert story.reports(77, 5) == []
    assert story.state.reports == {}
    story.reports(0, 5)
    assert story.reports(0, 6) == []
    story.reports(2)
    assert story.decision.target == 5


def test_a_report_after_the_decision_changes_nothing() -> None:
    story = Story(workers=2).begins(version=5)
    before = story.state
    assert story.reports(0, 5) == []
    assert story.state is before


def test_all_members_lost_continue_from_the_agents_frame() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.happens(m.FrameSealed(node="host", version=4, frame=1))
    story.lost(0)
    story.lost(1)
    assert story.view == [2]
    story.reports(2)
    assert story.decision.target == 4
    assert story.decision.sources == {2: -1}


def test_the_agents_frame_is_not_used_while_a_member_has_state() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.happens(m.FrameSealed(node="host", version=4, frame=1))
    story.lost(0)
    story.everybody_reports(5)
    assert story.decision.target == 5
    assert story.decision.sources == {2: 1}


def test_all_members_lost_without_a_frame_is_an_error_and_never_a_restart_from_zero() -> None:
    story = Story(workers=2, spares=1).begins(version=5)
    story.lost(0)
    story.lost(1)
    story.reports(2)
    assert story.end.status == 1
    assert story.end.reason.startswith("StateLost: version 5 of the training state is lost")
    assert "worker 0 (killed), worker 1 (killed)" in story.end.reason


def test_all_members_lost_before_any_commit_begin_again_from_a_fresh_worker() -> None:
    story = Story(workers=1, spares=1).begins(version=0)
    story.lost(0)
    assert story.view == [1]
    story.reports(1)
    assert story.state.phase == "waiting"
    story.ready(2)
    assert list(story.fences()) == [1]
    assert story.view == [2]
    story.reports(2)
    assert story.decision.initial


def test_a_story_with_everything_replays() -> None:
    story = Story(workers=3, spares=1).begins(version=5)
    story.lost(1)
    story.everybody_reports(5)
    story.everybody_restores()
    story.committed(5)
    story.failed(0, 6, 1)
    story.ready(4)
    story.rehearsed(4)
    story.drain()
    story.finished(7, *story.state.members, drained=True)
    story.saved(0, 7)
    assert story.end.status == 0
    story.check_replay()


def test_the_last_worker_lost_without_restarts_names_the_version_that_is_lost() -> None:
    story = Story(workers=1, max_restarts=0).begins(version=7)
    story.lost(0)
    assert story.end.status == 1
    assert story.end.reason.startswith("StateLost: version 7 of the training state is lost")
    assert "0 restarts used" in story.end.reason
