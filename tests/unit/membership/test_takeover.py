"""A new coordinator begins from a copy of the old one's state, told to the pure machine."""

from __future__ import annotations

from nodes_story import Nodes

from hpresil.membership import machine, messages as m
from hpresil.membership.takeover import TookOver, rebased


def takes_over(story: Nodes, node: str, alive: dict[str, list[int]], generation: int = 0) -> list[m.ToAgent]:
    story.gone |= {w.id for w in story.state.workers.values() if w.id not in alive.get(w.node, ())}
    return story.happens(TookOver(node=node, term=story.state.term + 1, generation=generation, alive=alive))


def views(told: list[m.ToAgent]) -> set[tuple[int, tuple[int, ...]]]:
    return {
        (a.what.generation, tuple(a.what.members))
        for a in told
        if isinstance(a, m.Deliver) and isinstance(a.what, m.View)
    }


def test_one_view_without_the_lost_node_and_everybody_on_it() -> None:
    story = Nodes(workers=4, places=2).trains("a", "b")
    there = story.where()["b"]
    told = takes_over(story, "b", {"b": there})
    assert views(told) == {(1001, tuple(there))}
    assert (story.state.host, story.state.term) == ("b", 2)
    assert set(story.state.nodes) == {"b"}
    assert {loss.node for loss in story.state.losses} == {"a"}


def test_generations_begin_above_what_anybody_has_seen() -> None:
    story = Nodes(workers=4, places=2).trains("a", "b")
    told = takes_over(story, "b", {"b": story.where()["b"]}, generation=1007)
    assert {generation for generation, _ in views(told)} == {2001}


def test_everybody_gets_a_view_although_nobody_is_lost() -> None:
    story = Nodes(workers=2, nnodes=3, places=1).trains("a", "b", "c")
    members = story.state.members
    alive = {node: workers for node, workers in story.where().items() if node != "a"}
    if not any(story.state.workers[w].node == "a" for w in members):
        alive["a"] = []
    told = takes_over(story, "c", alive)
    assert views(told)


def test_a_worker_that_no_agent_has_any_more_is_lost() -> None:
    story = Nodes(workers=4, places=2).trains("a", "b")
    first, second = story.where()["b"]
    told = takes_over(story, "b", {"b": [second]})
    assert views(told) == {(1001, (second,))}
    assert first not in story.state.workers


def test_a_spare_that_stands_by_is_replaced_since_its_order_may_be_lost() -> None:
    story = Nodes(workers=2, spares=1, places=2).trains("a", "b")
    told = [a for a in story.told if isinstance(a, m.Deliver)]
    assert not any(isinstance(a.what, m.StandBy) for a in told)
    spare = next(w.id for w in story.state.workers.values() if w.phase == "spare")
    node = story.state.workers[spare].node
    story.happens(m.WorkerLost(worker=spare, reason="killed"))
    new = max(story.state.workers)
    story.ready(new)
    assert story.state.workers[new].phase == "standby"
    other = "b" if node == "a" else "a"
    told = takes_over(story, other, story.where())
    assert [a.worker for a in told if isinstance(a, m.FenceWorker)] == [new]


def test_before_the_first_step_the_job_ends() -> None:
    story = Nodes(workers=4, places=2)
    story.enters("a")
    story.enters("b")
    (ended,) = [a for a in takes_over(story, "b", {"b": story.where()["b"]}) if isinstance(a, m.JobEnded)]
    assert ended.status == 1
    assert "lost with node a before the first step" in ended.reason


def test_somebody_is_asked_anew_to_save() -> None:
    story = Nodes(workers=4, places=2).trains("a", "b")
    story.happens(m.Broken(reason="no room on the disk", sound=True))
    assert story.state.phase == "stopping"
    told = takes_over(story, "b", {"b": story.where()["b"]})
    (saver,) = [a.to for a in told if isinstance(a, m.Deliver) and isinstance(a.what, m.Save)]
    assert saver in story.where()["b"]


def test_who_asked_for_the_end_is_not_forgotten() -> None:
    story = Nodes(workers=4, places=2).trains("a", "b")
    story.happens(m.DrainRequested(why="SIGTERM"))
    there = story.where()["b"]
    told = takes_over(story, "b", {"b": there})
    assert {a.to for a in told if isinstance(a, m.Deliver) and isinstance(a.what, m.Drain)} == set(there)


def test_times_move_to_the_new_machines_clock() -> None:
    story = Nodes(workers=4, places=2)
    story.time = 100.0
    story.trains("a", "b")
    moved = rebased(story.state, -90.0)
    assert moved.since == story.state.since - 90.0
    assert {w.since for w in moved.workers.values()} == {w.since - 90.0 for w in story.state.workers.values()}
    assert machine.decode_state(machine.encode_state(moved)) == moved
