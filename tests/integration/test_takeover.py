"""The coordinator's node is lost, cut off or stopped, and the job goes on without it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cut_network
import job
from cut_network import CutNetwork
from launched import Launched
from machines import Machines

SCRIPT = "train_small.py"
MANY_STEPS = 600
FIELDS = ("step", "loss", "grad_norm", "state", "samples")
TWO_NODES = ("--local-nodes", "2", "--nproc-per-node", "2", "--record-state-every", "1")

pytestmark = pytest.mark.timeout(300)
needs_namespaces = pytest.mark.skipif(bool(why := cut_network.why_not()), reason=why)


def lines(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line)[name] for name in FIELDS) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", MANY_STEPS)
    assert done.status == 0, done.output
    return lines(done.directory / "record.jsonl")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[CutNetwork, Machines]]:
    with CutNetwork(3) as network:
        arguments = ("--steps", str(MANY_STEPS), "--sleep", "0.05")
        with Machines(tmp_path, network, 3, SCRIPT, *arguments) as machines:
            machines.until(lambda: machines.steps() >= 3, 120)
            yield network, machines


def assert_undisturbed(machines: Machines, undisturbed: list[Any]) -> None:
    found = lines(machines.record)
    assert len(found) > 10
    assert found == undisturbed[: len(found)]


def test_when_the_coordinators_node_is_lost_another_takes_over_and_the_bits_stay(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    arguments = ("--steps", str(MANY_STEPS), "--sleep", "0.05")
    record = tmp_path / "record.jsonl"
    flags = (*TWO_NODES, "--record", str(record))
    with Launched(tmp_path, SCRIPT, *arguments, flags=flags, start_method="forkserver") as launched:
        launched.until_step(5)
        os.kill(launched.facts()["pid"], signal.SIGKILL)
        (moved,) = launched.until(lambda: launched.events("CoordinatorMoved"))
        assert (moved["was"], moved["node"], moved["term"]) == ("node0", "node1", 2)
        launched.until(lambda: len(launched.events("ViewInstalled")[-1]["members"]) == 2)
        launched.until(lambda: len(launched.events("ViewInstalled")[-1]["members"]) == 4, 60)
        back = launched.events("StepCommitted")[-1]["step"]
        launched.until_step(back + 3)
        launched.signal(signal.SIGTERM)
        assert launched.ended(60) == 0, launched.story()
        sizes = [len(view["members"]) for view in launched.events("ViewInstalled")]
    assert (sizes[0], sizes[1], sizes[-1]) == (4, 2, 4), f"lost at once, then grown back: {sizes}"
    found = lines(record)
    assert found == undisturbed[: len(found)]


@needs_namespaces
def test_most_of_the_nodes_make_a_new_coordinator_twice(
    three: tuple[CutNetwork, Machines], undisturbed: list[Any]
) -> None:
    _, machines = three
    machines.launchers[0].kill()
    machines.until(lambda: machines.events("CoordinatorMoved"))
    machines.until(lambda: machines.members() == 2)
    machines.until_steps(5)
    machines.start(0)  # with the same command: it finds where the coordinator is now
    machines.until(lambda: machines.members() == 3)
    machines.until_steps(5)
    chief = machines.events("CoordinatorMoved")[-1]["node"]
    machines.launchers[int(chief[1])].kill()
    machines.until(lambda: len(machines.events("CoordinatorMoved")) == 2)
    machines.until(lambda: machines.members() == 2)
    machines.until_steps(5)
    assert machines.events("CoordinatorMoved")[-1]["term"] == 3
    assert sorted(machines.drained(0).values()) == [-signal.SIGKILL, 0, 0], machines.story()
    assert_undisturbed(machines, undisturbed)


@needs_namespaces
def test_a_coordinator_that_is_cut_off_commits_nothing_and_follows_the_new_one_once_the_network_is_whole(
    three: tuple[CutNetwork, Machines], undisturbed: list[Any]
) -> None:
    network, machines = three
    network.cut(0)
    (moved,) = machines.until(lambda: machines.events("CoordinatorMoved"))
    assert moved["node"] != "m0"
    machines.until(lambda: machines.events("Suspended"))
    assert "m0" not in {event.get("node") for event in machines.events("StepCommitted")[-1:]}
    machines.until(lambda: machines.members() == 2)
    machines.until_steps(5)
    assert "nothing is committed here until they are back" in machines.said(0)
    network.heal(0)
    machines.until(lambda: machines.members() == 3, 60)
    machines.until_steps(5)
    assert set(machines.drained(1).values()) == {0}, machines.story()
    assert_undisturbed(machines, undisturbed)


@needs_namespaces
def test_a_node_that_is_cut_off_waits_and_comes_back(
    three: tuple[CutNetwork, Machines], undisturbed: list[Any]
) -> None:
    network, machines = three
    network.cut(2)
    machines.until(lambda: machines.events("NodeLost"))
    machines.until(lambda: machines.members() == 2)
    machines.until_steps(5)
    machines.until(lambda: "has lost the coordinator" in machines.said(2))
    network.heal(2)
    machines.until(lambda: machines.members() == 3, 60)
    machines.until_steps(5)
    assert not machines.events("CoordinatorMoved")
    assert set(machines.drained(0).values()) == {0}, machines.story()
    assert_undisturbed(machines, undisturbed)


@needs_namespaces
@pytest.mark.parametrize("machine", [0, 1], ids=["the coordinator's", "another"])
def test_a_node_that_stood_still_comes_too_late_to_change_anything(
    machine: int, three: tuple[CutNetwork, Machines], undisturbed: list[Any]
) -> None:
    _, machines = three
    machines.send(machine, signal.SIGSTOP)
    machines.until(lambda: machines.members() == 2)
    machines.until_steps(5)
    generation = machines.events("ViewInstalled")[-1]["generation"]
    machines.send(machine, signal.SIGCONT)
    machines.until(lambda: machines.members() == 3, 60)
    machines.until_steps(5)
    late = [e for e in machines.events("StepCommitted") if e["generation"] < generation]
    committed = machines.events("StepCommitted")
    assert committed.index(late[-1]) == len(late) - 1, "an older generation committed after a newer one"
    assert set(machines.drained(2).values()) == {0}, machines.story()
    assert_undisturbed(machines, undisturbed)


@needs_namespaces
def test_training_goes_on_while_there_is_no_coordinator(
    three: tuple[CutNetwork, Machines], undisturbed: list[Any]
) -> None:
    _, machines = three
    machines.launchers[0].send_signal(signal.SIGSTOP)  # the agent alone: its worker computes on
    stopped_at = machines.steps()
    machines.until(lambda: machines.events("CoordinatorMoved"))
    machines.until(lambda: machines.members() == 2)
    last = max(e["step"] for e in machines.events("StepCommitted") if e["generation"] == 1)
    assert last > stopped_at + 10, f"from step {stopped_at} to {last} without a coordinator"
    machines.launchers[0].send_signal(signal.SIGCONT)
    machines.until(lambda: machines.members() == 3, 60)
    machines.until_steps(5)
    assert set(machines.drained(1).values()) == {0}, machines.story()
    assert_undisturbed(machines, undisturbed)
