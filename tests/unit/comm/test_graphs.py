"""Graphs that hold collectives, against a scripted CUDA: kept as work, captured once a generation."""

import pytest

from hpresil.base.errors import UsageError
from hpresil.comm.graphs import CollectiveGraphs


class ScriptedGraph:
    def __init__(self, communicator, log):
        self.communicator, self.log, self.gone = communicator, log, False

    def replay(self):
        assert not self.gone
        self.log.append(("replay", self.communicator))

    def reset(self):
        self.gone = True
        self.log.append(("reset", self.communicator))
        if self.communicator == "lost":
            raise RuntimeError("an illegal memory access was encountered")


class World:
    """The communicator of the present generation, and what happened."""

    def __init__(self):
        self.communicator, self.log, self.fails = "dp of 1", [], 0
        self.graphs = CollectiveGraphs(self.capture)

    def capture(self, work):
        used = work()
        self.log.append(("capture", used))
        if self.fails:
            self.fails -= 1
            raise RuntimeError("operation would make the legacy stream depend on a capturing stream")
        return ScriptedGraph(used, self.log), f"output of {used}"

    def work(self):
        return self.communicator


def test_work_is_captured_once_and_replayed_each_time() -> None:
    world = World()
    world.graphs.add("sum", world.work)
    assert world.log == []
    assert [world.graphs.replay("sum") for _ in range(2)] == ["output of dp of 1"] * 2
    assert world.log == [("capture", "dp of 1"), ("replay", "dp of 1"), ("replay", "dp of 1")]


def test_the_next_generation_replays_nothing_of_the_one_before() -> None:
    world = World()
    world.graphs.add("sum", world.work)
    world.graphs.add("never used", world.work)
    world.graphs.replay("sum")
    assert world.graphs.drop() == 1
    assert world.graphs.drop() == 0
    world.communicator = "dp of 2"
    assert world.graphs.replay("sum") == "output of dp of 2"
    assert world.log[2:] == [("reset", "dp of 1"), ("capture", "dp of 2"), ("replay", "dp of 2")]


def test_a_capture_that_fails_leaves_no_graph_and_is_tried_again() -> None:
    world = World()
    world.fails = 1
    world.graphs.add("sum", world.work)
    with pytest.raises(RuntimeError, match="legacy stream"):
        world.graphs.replay("sum")
    assert world.graphs.drop() == 0
    world.graphs.replay("sum")
    assert world.log[-1] == ("replay", "dp of 1")


def test_all_graphs_go_although_one_meets_an_error() -> None:
    world = World()
    for name in ("a", "b"):
        world.graphs.add(name, world.work)
    world.communicator = "lost"
    world.graphs.replay("a")
    world.communicator = "dp of 1"
    world.graphs.replay("b")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        world.graphs.drop()
    assert world.log[-2:] == [("reset", "lost"), ("reset", "dp of 1")]
    assert world.graphs.drop() == 0


def test_names_are_unique_and_known() -> None:
    world = World()
    world.graphs.add("sum", world.work)
    with pytest.raises(UsageError, match="'sum' already"):
        world.graphs.add("sum", world.work)
    with pytest.raises(UsageError, match="no work named 'mean'; there is: \\['sum'\\]"):
        world.graphs.replay("mean")
