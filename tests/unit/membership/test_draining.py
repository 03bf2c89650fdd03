"""Draining a node, told to the pure machine: who leaves when, who is asked what, and what cannot be done."""

from __future__ import annotations

import pytest
from nodes_story import Nodes

from hpresil.membership import messages as m


def asked(**settings: int) -> Nodes:
    """Two nodes with two workers each train, and node b is asked to leave."""
    story = Nodes(4, places=2, **settings).trains("a", "b")
    answer = story.asks_to_drain("b")
    assert (answer.done, answer.failed) == (False, False), answer
    return story


def test_all_members_are_asked_to_hand_over_and_nobody_leaves_before_they_have() -> None:
    story = asked()
    assert story.who_got(m.HandOver) == list(story.state.members)
    story.hand_over(7, *story.state.members[:3])
    assert story.told == []
    assert len(story.state.members) == 4


def test_those_on_the_node_leave_in_one_view_then_their_agent() -> None:
    story = asked()
    here, there = story.where()["a"], story.where()["b"]
    story.hand_over(7)
    assert sorted(story.view) == sorted(here)
    assert sorted(story.who_got(m.Release)) == sorted(there)
    assert set(there) <= set(story.who_got(m.View)), "those who leave must know their last view"
    assert story.dismissed == []
    story.leaves(there[0])
    assert story.dismissed == []
    story.leaves(there[1])
    assert story.dismissed == ["b"]
    assert (story.answers[0].done, story.answers[0].failed) == (True, False)
    assert [type(action) for action in story.told].index(m.Answered) < [
        type(action) for action in story.told
    ].index(m.Dismissed), "whoever asks on the node itself must hear the answer"
    assert set(story.state.nodes) == {"a"}
    assert story.state.losses == ()
    assert story.state.restarts == 0


def test_the_end_of_its_connection_afterwards_is_no_loss() -> None:
    story = asked()
    there = story.where()["b"]
    story.hand_over(7)
    story.leaves(*there)
    before = story.state
    story.loses("b")
    assert story.state == before


def test_who_takes_part_again_joins_as_a_new_node() -> None:
    story = asked()
    there = story.where()["b"]
    story.hand_over(7)
    story.everybody_reports(7)
    story.leaves(*there)
    assert story.state.drained_nodes == ("b",)
    told = story.enters("b")
    assert story.state.drained_nodes == ()
    assert [action.node for action in told if isinstance(action, m.StartWorker)] == ["b", "b"]
    assert story.state.restarts == 0


def test_spares_elsewhere_copy_the_state_before_anybody_leaves() -> None:
    story = Nodes(2, spares=2, places=2).trains("a", "b")
    spares = [w for w in story.state.workers if w not in story.state.members]
    node = {story.state.workers[m].node for m in story.state.members}
    assert node == {"a", "b"}
    on_b = next(m for m in story.state.members if story.state.workers[m].node == "b")
    spare_of_a = next(w for w in spares if story.state.workers[w].node == "a")
    story.asks_to_drain("b")
    assert spare_of_a in story.view
    assert on_b in story.view, "it is a source until the newcomer has the state"
    assert story.who_got(m.HandOver) == []
    story.everybody_reports(0)
    assert story.who_got(m.HandOver) == []
    story.everybody_restores()
    assert story.who_got(m.HandOver) == list(story.state.members)
    rank = story.state.members.index(on_b)
    story.hand_over(1)
    assert story.view[rank] == spare_of_a, "the newcomer takes the rank of the one that leaves"


def test_a_spare_on_the_node_leaves_at_once() -> None:
    story = Nodes(1, spares=1, places=1).trains("a", "b")
    (spare,) = story.where()["b"]
    assert spare not in story.state.members
    story.asks_to_drain("b")
    assert story.who_got(m.Release) == [spare]
    story.leaves(spare)
    assert story.dismissed == ["b"]


def test_a_process_that_only_starts_is_not_waited_for() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    story.lost(story.where()["b"][0])
    starting = story.starts()[0]
    story.everybody_reports(0)
    story.asks_to_drain("b")
    assert starting in story.fences()
    assert starting in story.who_got(m.Release), "so that its agent takes its end for what it is"


def test_processes_are_started_elsewhere_if_there_is_room_and_are_no_restarts() -> None:
    story = Nodes(2, places=2).trains("a", "b")
    story.asks_to_drain("b")
    starts = [action for action in story.told if isinstance(action, m.StartWorker)]
    assert [(start.node, start.restart) for start in starts] == [("a", False)]
    story.hand_over(3)
    assert len(story.view) == 1, "nobody waits for the new one"


def test_a_loss_meanwhile_keeps_those_who_leave_and_begins_anew() -> None:
    story = asked()
    (first, second), there = story.where()["a"], story.where()["b"]
    story.hand_over(7, *there)
    story.lost(first)
    assert set(there) <= set(story.view)
    story.hand_over(7, second)  # of the old generation
    story.everybody_reports(7)
    assert story.who_got(m.HandOver) == list(story.state.members)
    story.hand_over(8)
    assert story.view == [second]


def test_the_node_of_the_coordinator_is_drained_of_workers_only() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    here = story.where()["a"]
    story.asks_to_drain("a")
    story.hand_over(7)
    assert sorted(story.view) == sorted(story.where()["b"])
    story.leaves(*here)
    assert story.dismissed == []
    assert "its agent stays without workers" in story.answers[0].text
    assert "a" in story.state.nodes
    assert story.starts() == []


def test_draining_twice_is_one_drain_with_two_answers() -> None:
    story = asked()
    assert story.asks_to_drain("b", request=2).failed is False
    there = story.where()["b"]
    story.hand_over(7)
    story.leaves(*there)
    assert sorted(answer.request for answer in story.answers) == [1, 2]
    assert story.dismissed == ["b"]


def test_what_cannot_be_drained_and_why() -> None:
    story = Nodes(4, places=2, min_workers=3).trains("a", "b")
    no = story.asks_to_drain("c")
    assert no.failed
    assert "there is no such node; there are: a, b" in no.text
    assert "room for 2 of at least 3 workers" in story.asks_to_drain("b").text
    story = Nodes(2, nnodes=1).trains("a")
    assert "no other node is there to go on" in story.asks_to_drain("a").text


def test_two_nodes_are_not_both_drained() -> None:
    story = asked()
    assert "no other node is there to go on" in story.asks_to_drain("a", request=2).text


@pytest.mark.parametrize("phase", ["forming", "waiting", "stopping", "finishing"])
def test_when_nothing_can_be_drained(phase: str) -> None:
    story = Nodes(4, places=2, min_workers=3)
    if phase == "forming":
        story.enters("a")
        story.enters("b")
    else:
        story.trains("a", "b")
    if phase == "waiting":
        for worker in story.where()["b"]:
            story.lost(worker)
        assert story.state.phase == "waiting"
    elif phase == "stopping":
        story.failed(story.state.members[0], 1, 0)
        story.failed(story.state.members[0], 1, 0)
        assert story.state.phase == "stopping"
    elif phase == "finishing":
        story.finished(9, story.state.members[0])
    answer = story.asks_to_drain("a")
    assert answer.failed
    assert {"forming": "not begun", "waiting": "waits for workers"}.get(phase, "about to end") in answer.text


def test_while_it_recovers_a_drain_is_accepted_and_comes_after_that() -> None:
    story = Nodes(4, places=2).trains("a", "b")
    story.lost(story.where()["a"][0])
    assert story.state.phase == "regrouping"
    assert story.asks_to_drain("b").failed is False
    assert story.who_got(m.HandOver) == []
    story.everybody_reports(0)
    assert story.who_got(m.HandOver) == list(story.state.members)


def test_a_drained_node_that_is_lost_is_a_lost_node() -> None:
    story = asked()
    story.loses("b")
    assert story.answers[0].failed
    assert "was lost while it was drained" in story.answers[0].text
    assert sorted(story.view) == sorted(story.where()["a"])


def test_a_drain_is_given_up_when_no_other_node_is_left() -> None:
    story = Nodes(3, places=1, nnodes=3).trains("a", "b", "c")
    story.asks_to_drain("c")
    story.loses("b")
    assert story.answers == []
    story.loses("a")
    assert not story.state.nodes["c"].draining
    assert story.state.members == tuple(story.where()["c"])


def test_a_drain_is_given_up_when_nobody_elsewhere_becomes_ready_in_time() -> None:
    story = Nodes(2, places=2, nnodes=1, join_timeout_s=50).trains("a")
    story.enters("b")
    story.asks_to_drain("a")
    assert story.starts()
    story.after(49)
    assert story.answers == []
    story.after(1)
    assert "not enough workers were ready elsewhere within 50 s" in story.answers[0].text
    assert not story.state.nodes["a"].draining


def test_one_that_does_not_end_after_its_release_is_killed() -> None:
    story = asked(leave_timeout_s=30)
    there = story.where()["b"]
    story.hand_over(7)
    story.after(29)
    assert story.fences() == {}
    story.after(1)
    assert sorted(story.fences()) == sorted(there)


def test_members_that_wait_for_one_that_does_not_hand_over_are_asked_to_report() -> None:
    story = asked(report_timeout_s=60)
    story.hand_over(7, *story.state.members[1:])
    generation = story.state.generation
    story.after(60)
    assert story.state.generation == generation + 1
    assert len(story.view) == 4


def test_a_job_that_is_drained_as_a_whole_lets_those_go_on_who_have_handed_over() -> None:
    story = asked()
    story.drain()
    story.hand_over(7)
    assert len(story.view) == 4, "they have to make the step that carries the wish to leave"


def test_a_job_that_ends_at_the_same_step_needs_no_other_view() -> None:
    story = asked()
    one, *others = story.state.members
    story.finished(7, one)
    story.hand_over(7, *others)
    story.hand_over(7, one)
    assert not any(isinstance(action, m.Deliver) for action in story.told)
    story.finished(7, *others)
    assert story.end.reason == "finished at version 7"
