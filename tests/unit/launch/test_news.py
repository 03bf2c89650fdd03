"""Which events follow from the coordinator's states."""

from __future__ import annotations

import msgspec

from hpresil.launch.news import News
from hpresil.membership.state import Node, Settings, State, Worker, begin

NODES = {name: Node(name=name, order=order, address="", since=0.0) for order, name in enumerate("ab")}
WORKERS = {0: Worker(id=0, index=0, node="a", since=0.0), 1: Worker(id=1, index=0, node="b", since=0.0)}
TRAINING = msgspec.structs.replace(
    begin(Settings(workers=2), 0.0), nodes=NODES, workers=WORKERS, members=(0, 1)
)


def told(*states: State) -> list[tuple[str, dict[str, object]]]:
    news = News()
    assert news.of(TRAINING) == []
    return [(event, fields) for state in states for event, fields, words in news.of(state) if words]


def after(state: State = TRAINING, **changes: object) -> State:
    return msgspec.structs.replace(state, **changes)


def draining(name: str) -> dict[str, Node]:
    return {**NODES, name: msgspec.structs.replace(NODES[name], draining=True)}


def test_a_size_is_asked_for_and_reached() -> None:
    asked = after(wanted=1, resizing=True)
    assert told(asked, asked, after(wanted=1, members=(0,))) == [
        ("ResizeRequested", {"workers": 1, "before": 2}),
        ("Resized", {"workers": 1, "members": [0]}),
    ]


def test_a_size_that_is_there_already_is_both_at_once() -> None:
    assert [event for event, _ in told(after(wanted=1))] == ["ResizeRequested", "Resized"]


def test_a_node_is_drained() -> None:
    gone = after(nodes={"a": NODES["a"]}, workers={0: WORKERS[0]}, drained_nodes=("b",))
    assert told(after(nodes=draining("b")), gone) == [
        ("NodeDraining", {"node": "b", "workers": [1]}),
        ("NodeDrained", {"node": "b", "agent_stays": False}),
    ]


def test_the_coordinators_node_stays_when_it_is_drained() -> None:
    drained = after(nodes=draining("a"), drained_nodes=("a",))
    assert told(drained)[-1] == ("NodeDrained", {"node": "a", "agent_stays": True})


def test_a_drain_is_given_up() -> None:
    assert told(after(nodes=draining("b")), TRAINING)[-1] == ("NodeDrainGivenUp", {"node": "b"})


def test_a_node_that_is_lost_meanwhile_is_not_drained() -> None:
    lost = after(nodes={"a": NODES["a"]}, workers={0: WORKERS[0]})
    assert [event for event, _ in told(after(nodes=draining("b")), lost)] == ["NodeDraining"]
