"""Several nodes, told to the pure machine: joining, reaching each other, room, losses, the store."""

from __future__ import annotations

from collections import Counter

import pytest
from coordinator_story import FACTS, Story
from nodes_story import Nodes

from hpresil.membership import messages as m

# --------------------------------------------------------------------------- joining


def test_the_job_waits_until_as_many_nodes_are_there_as_it_needs() -> None:
    story = Nodes(nnodes=3)
    assert story.enters("a") == []
    story.enters("b")
    assert story.starts() == []
    assert story.state.phase == "joining"
    story.enters("c")
    assert story.starts() == [0, 1]
    assert story.state.phase == "forming"


def test_a_node_that_does_not_come_ends_the_wait_and_those_there_are_named() -> None:
    story = Nodes(join_timeout_s=10)
    story.enters("a")
    story.after(9.9)
    assert story.state.phase == "joining"
    story.after(0.1)
    assert story.end.status == 1
    assert "not all 2 nodes joined within 10 s; there: a" in story.end.reason


def test_agents_try_to_reach_each_other_both_ways() -> None:
    story = Nodes(nnodes=3)
    story.joins("a")
    assert story.probes() == {}
    story.joins("b")
    assert story.probes() == {"b": {"a": "a:1"}, "a": {"b": "b:1"}}
    story.joins("c")
    assert story.probes() == {"c": {"a": "a:1", "b": "b:1"}, "a": {"c": "c:1"}, "b": {"c": "c:1"}}


def test_nothing_starts_before_every_pair_has_reached_each_other() -> None:
    story = Nodes()
    story.joins("a")
    story.joins("b")
    story.reaches("a", "b")
    assert story.state.phase == "joining", "b has not said yet that it reaches a"
    story.reaches("b", "a")
    assert story.state.phase == "forming"


def test_a_word_about_a_later_node_is_no_word_about_an_earlier_one() -> None:
    story = Nodes(nnodes=3)
    for node in "abc":
        story.joins(node)
    story.reaches("c", "a", "b")
    story.reaches("a", "c")
    story.reaches("a", "b")
    story.reaches("b", "c")  # its try of a still waits for an answer
    assert story.state.phase == "joining"
    story.reaches("b", "a")
    assert story.state.phase == "forming"


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("b", "a")])
def test_two_agents_that_do_not_reach_each_other_at_the_start_end_the_job_and_both_are_named(
    one: str, other: str
) -> None:
    story = Nodes()
    story.joins("a")
    story.joins("b")
    story.reaches(one, other, failed=other)
    assert story.end.status == 1
    assert story.end.reason == (
        f"the agent of node {one} does not reach that of node {other}: refused; "
        "check firewalls and --node-addr"
    )


@pytest.mark.parametrize(("one", "other"), [("a", "c"), ("c", "a")])
def test_a_later_node_that_does_not_reach_the_others_is_sent_away_and_the_job_goes_on(
    one: str, other: str
) -> None:
    story = Nodes(4, places=2).trains("a", "b")
    before = story.state.members
    story.joins("c")
    story.reaches(one, other, failed=other)
    assert list(story.rejected()) == ["c"]
    assert f"node {one} does not reach that of node {other}" in story.rejected()["c"]
    assert set(story.state.nodes) == {"a", "b"}
    assert story.state.members == before
    story.reaches("b", "c")  # late words about it change nothing
    story.loses("c")
    assert story.state.phase == "training"


def test_a_word_about_a_nodes_old_address_counts_neither_for_nor_against_its_return() -> None:
    story = Nodes(4, places=2).trains("a", "b", "c")
    story.loses("c")
    story.joins("c")
    story.reaches("a", "c", failed="c", address="c:1")
    assert story.rejected() == {}
    story.reaches("b", "c", address="c:1")
    story.reaches("c", "a", "b")
    story.reaches("a", "c")
    assert story.state.nodes["c"].unproven == ("b",)
    story.reaches("b", "c")
    assert story.state.nodes["c"].unproven == ()


def test_a_node_that_is_lost_is_not_waited_for_by_those_that_were_to_reach_it() -> None:
    story = Nodes(nnodes=2)
    for node in "abc":
        story.joins(node)
    story.reaches("b", "c")
    story.reaches("c", "b")
    story.loses("a")
    assert story.state.phase == "forming"


# --------------------------------------------------------------------------- room


def test_workers_are_spread_evenly_and_spares_stand_on_distinct_nodes() -> None:
    story = Nodes(4, spares=2)
    story.enters("a")
    story.enters("b")
    placed = [(a.node, a.spare) for a in story.told if isinstance(a, m.StartWorker)]
    assert Counter(placed) == {("a", False): 2, ("b", False): 2, ("a", True): 1, ("b", True): 1}


def test_an_odd_worker_more_goes_to_the_node_that_joined_first() -> None:
    story = Nodes(3)
    story.enters("b")
    story.enters("a")
    assert {node: len(workers) for node, workers in story.where().items()} == {"b": 2, "a": 1}


def test_a_node_never_has_more_processes_than_places() -> None:
    story = Nodes(5, spares=2, nnodes=2, places=2, min_workers=1)
    story.enters("a")
    story.enters("b")
    assert {node: len(workers) for node, workers in story.where().items()} == {"a": 2, "b": 2}
    story.enters("c")
    assert {node: len(workers) for node, workers in story.where().items()} == {"a": 2, "b": 2, "c": 2}


def test_the_index_of_a_worker_is_its_place_on_its_node() -> None:
    story = Nodes(4)
    story.enters("a")
    story.enters("b")
    places = sorted((w.node, w.index) for w in story.state.workers.values())
    assert places == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_worker_comes_back_at_the_place_of_the_one_that_was_lost() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    lost = next(w for w in story.state.workers.values() if (w.node, w.index) == ("b", 0))
    story.lost(lost.id)
    start = next(a for a in story.told if isinstance(a, m.StartWorker))
    assert (start.node, start.index) == ("b", 0)
    assert story.state.restarts == 1


# --------------------------------------------------------------------------- losses


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


# --------------------------------------------------------------------------- frames and the roster


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
