"""Nodes that are lost, told to the pure machine: views, returns, frames, and who hears where workers are."""

from __future__ import annotations

import pytest
from coordinator_story import FACTS, Story
from nodes_story import Nodes

from hpresil.membership import messages as m


def test_a_lost_node_is_one_new_view_without_all_its_workers() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    here, generation = story.where()["a"], story.state.generation
    story.loses("b")
    assert sorted(story.view) == here
    assert story.state.generation == generation + 1
    assert story.who_got(m.View) == here
    assert story.starts() == []
    assert {loss.reason for loss in story.state.losses} == {"node lost"}


def test_its_return_fills_the_group_again_and_counts_no_restart() -> None:
    story = Nodes(4, places=2, max_restarts=0).trains("a", "b")
    here = story.where()["a"]
    story.loses("b")
    story.everybody_reports(0)
    told = story.enters("b")
    new = [a.worker for a in told if isinstance(a, m.StartWorker)]
    assert len(new) == 2
    assert story.state.restarts == 0
    story.ready(*new)
    story.rehearsed(new[0])
    story.everybody_reports(0)
    story.everybody_restores()
    story.rehearsed(new[1])
    story.everybody_reports(0)
    story.everybody_restores()
    story.committed(0)
    assert set(story.state.members) == {*here, *new}


def test_a_spare_on_another_node_takes_the_place_of_a_lost_one() -> None:
    story = Nodes(2, spares=2, places=2).trains("a", "b")
    story.loses("b")
    assert sorted(story.view) == story.where()["a"]
    assert len(story.view) == 2


@pytest.mark.parametrize("nnodes", [1, 2])
def test_a_node_lost_while_the_job_forms(nnodes: int) -> None:
    story = Nodes(2, nnodes=nnodes, places=2)
    story.enters("a")
    story.enters("b")
    story.loses("b")
    if nnodes == 1:
        assert story.state.phase == "forming"
        assert len(story.where()["a"]) == 2
        return
    assert story.state.phase == "joining"
    story.enters("b")
    assert story.state.phase == "forming"
    story.ready(*story.state.workers)
    assert story.state.phase == "regrouping"
    assert len(story.state.members) == 2


def test_a_script_that_fails_while_its_job_waits_for_a_node_again_still_ends_it() -> None:
    story = Nodes(2, places=1)
    story.enters("a")
    story.enters("b")
    story.loses("b")
    story.lost(story.where()["a"][0], reason="exited", status=3)
    assert story.end.status == 3


def test_a_worker_of_another_kind_that_comes_while_a_node_is_missing_ends_the_job() -> None:
    story = Nodes(4, places=2)
    story.enters("a")
    story.enters("b")
    story.loses("b")
    one, other = story.where()["a"]
    story.ready(one)
    story.ready(other, facts={**FACTS, "platform.torch": "1.0"})
    assert "Refused" in story.end.reason


def test_a_node_lost_while_the_job_waits_changes_who_can_still_come() -> None:
    story = Nodes(3, places=1, nnodes=3, min_workers=2, max_restarts=0).trains("a", "b", "c")
    story.loses("c")
    story.everybody_reports(0)
    story.loses("b")
    assert story.state.phase in ("waiting", "stopping", "ended")
    assert len(story.state.members) == 1


def test_a_lost_node_with_the_saver_has_the_next_one_save() -> None:
    story = Nodes(2, places=1).trains("a", "b")
    story.failed(story.where()["a"][0], 1, 0)
    story.failed(story.where()["a"][0], 1, 0)
    first = story.who_got(m.Save)
    assert len(first) == 1
    node = story.state.workers[first[0]].node
    story.loses(node)
    assert story.who_got(m.Save) == [w.id for w in story.state.workers.values()]
    assert story.who_got(m.Save) != first


def test_a_lost_node_nobody_knows_changes_nothing() -> None:
    story = Nodes(2).trains("a", "b")
    before = story.state
    assert story.loses("z") == []
    assert story.state == before


def test_words_of_a_lost_nodes_workers_have_no_effect() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    late = story.where()["b"]
    story.loses("b")
    before = story.state
    for worker in late:
        story.says(worker, m.Report(generation=before.generation, version=5, phase="computing"))
        story.says(worker, m.Finished(generation=before.generation, version=5))
        story.lost(worker)
    assert story.state == before


def test_the_decision_names_the_node_with_the_newest_frame_and_forgets_a_lost_ones() -> None:
    story = Nodes(2, spares=2, places=2).trains("a", "b")
    story.happens(m.FrameSealed(node="a", version=3, frame=0))
    story.happens(m.FrameSealed(node="b", version=5, frame=1))
    for step in range(5):
        story.committed(step)
    for member in list(story.state.members):
        story.lost(member)
    for member in story.state.members:
        story.reports(member)
    decision = story.state.decision
    assert decision is not None
    assert (decision.target, decision.store) == (5, "b")
    assert set(decision.sources.values()) == {-1}


def test_the_frames_of_a_lost_node_are_forgotten() -> None:
    story = Nodes(2).trains("a", "b")
    story.happens(m.FrameSealed(node="a", version=3, frame=0))
    story.happens(m.FrameSealed(node="b", version=5, frame=1))
    story.loses("b")
    assert set(story.state.sealed) == {"a"}
    story.happens(m.FrameSealed(node="b", version=6, frame=1))  # under way when it was lost
    assert set(story.state.sealed) == {"a"}


def test_everybody_hears_where_the_workers_are_before_the_view() -> None:
    story = Nodes(2, places=1)
    story.enters("a")
    story.enters("b")
    story.ready(0, 1)
    kinds = [type(a.what) if isinstance(a, m.Deliver) else type(a) for a in story.told]
    assert kinds[0] is m.Roster
    roster = next(a for a in story.told if isinstance(a, m.Roster))
    assert roster.generation == story.state.generation == 1
    assert roster.workers == {0: "a", 1: "b"}
    assert roster.addresses == {"a": "a:1", "b": "b:1"}


def test_the_last_node_hears_of_a_worker_that_was_started_after_the_others_were_lost() -> None:
    """It would take the newcomer for another node's, and never tell it that its state is there."""
    story = Nodes(2, places=2).trains("a", "b")
    (left,) = story.where()["a"]
    story.loses("b")
    (newcomer,) = story.starts()
    story.reports(left, 5)
    story.ready(newcomer)
    story.rehearsed(newcomer)
    assert story.view == [left, newcomer]
    (roster,) = (told for told in story.told if isinstance(told, m.Roster))
    assert roster.generation == story.state.generation
    assert roster.workers == {left: "a", newcomer: "a"}
    assert roster.addresses == {"a": "a:1"}


def test_a_job_of_one_node_needs_no_roster_and_no_probes() -> None:
    story = Story(2).begins()
    assert not any(isinstance(event, m.Reached) for event, _ in story.history)
    assert story.state.phase == "training"
