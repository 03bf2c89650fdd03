"""Several nodes, told to the pure machine: joining, reaching each other, room for workers."""

from __future__ import annotations

from collections import Counter

import pytest
from nodes_story import Nodes

from hpresil.membership import messages as m


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
