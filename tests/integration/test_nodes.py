"""Jobs of several nodes on one machine: each agent knows the others through the network only."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import records
from hpresil.telemetry import trace
from launched import Launched
from records import compared

SCRIPT = "train_small.py"
STEPS = 40
TWO_NODES = ("--local-nodes", "2", "--nproc-per-node", "2", "--record-state-every", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> records.Compared:
    return records.undisturbed(tmp_path_factory.mktemp("alone"), SCRIPT, STEPS)


def started(
    directory: Path, *flags: str, steps: int = STEPS, slow: float = 0.0, more: tuple[str, ...] = ()
) -> Launched:
    record = str(directory / "record.jsonl")
    arguments = ("--steps", str(steps), "--sleep", str(slow), *more)
    flags = (*TWO_NODES, "--record", record, *flags)
    return Launched(directory, SCRIPT, *arguments, flags=flags, start_method="forkserver")


def node_of(launched: Launched, worker: int) -> str:
    found = next(event for event in launched.events("WorkerStarted") if event["worker"] == worker)
    return found.get("node", "node0")


def moved_bytes(run_dir: Path, worker: int) -> tuple[list[int], list[int]]:
    """Return by step the bytes of gradients that came to a worker from other nodes, and those it read."""
    kept = [*trace.read_all(run_dir), *trace.read_nodes(run_dir)]
    (spans,) = [one.spans for one in kept if one.worker == worker]
    return tuple([span.value for span in spans if span.name == name] for name in ("fold", "collect"))


def test_two_nodes_give_the_record_of_one_worker(undisturbed: list[Any], tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "3") as launched:
        assert launched.ended(60) == 0, launched.story()
        nodes = [node_of(launched, worker) for worker in range(3)]
        assert sorted(nodes) == ["node0", "node0", "node1"]
    assert compared(tmp_path / "record.jsonl") == undisturbed
    moved = [moved_bytes(tmp_path / "run", worker) for worker in range(3)]
    for node in set(nodes):
        arrived = [moved[worker][0] for worker in range(3) if nodes[worker] == node]
        assert [len(one) for one in arrived] == [STEPS] * len(arrived)
        assert all(map(sum, zip(*arrived, strict=True))), (
            f"no gradient came to {node} in some step: {arrived}"
        )
    for worker, (_, read) in enumerate(moved):  # the only worker of a node has nobody there to read from
        assert len(read) == (STEPS if nodes.count(nodes[worker]) > 1 else 0)
        assert all(read), f"worker {worker} read nothing in the memory of its node: {read}"


def test_a_lost_node_shrinks_the_group_and_its_return_lets_it_grow(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    with started(tmp_path, slow=0.25) as launched:
        launched.until_step(5)
        os.kill(launched.events("NodeJoined")[0]["pid"], signal.SIGKILL)
        launched.until(lambda: launched.events("NodeLost"))
        launched.until(lambda: len(launched.events("NodeJoined")) == 2)
        launched.until(lambda: len(launched.events("ViewInstalled")[-1]["members"]) == 4)
        assert launched.ended(60) == 0, launched.story()
        sizes = [len(view["members"]) for view in launched.events("ViewInstalled")]
    assert sizes[0] == 4
    assert min(sizes) == 2, f"the group did not shrink to one node at once: {sizes}"
    assert sizes[-1] == 4, f"the group did not grow back: {sizes}"
    assert compared(tmp_path / "record.jsonl") == undisturbed


def caught_while_fetching(pid: int) -> bool:
    """Stop an agent once its engine brings a frame; return whether it still did then."""

    def fetches() -> bool:
        for name in Path(f"/proc/{pid}/task").glob("*/comm"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
                if name.read_text().startswith("hpresil-fetch"):
                    return True
        return False

    if not fetches():
        return False
    os.kill(pid, signal.SIGSTOP)
    return fetches()


@pytest.mark.timeout(240)
def test_a_node_that_is_lost_again_while_its_state_arrives_comes_back_once_more(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    ballast = ("--ballast", str(32 << 20))  # which takes no part in a step
    with started(tmp_path, "--record-state-every", "1000", slow=0.25, steps=200, more=ballast) as launched:
        launched.until_step(3)
        os.kill(launched.events("NodeJoined")[0]["pid"], signal.SIGKILL)
        launched.until(lambda: len(launched.events("NodeJoined")) == 2)
        again = launched.events("NodeJoined")[1]["pid"]
        end = time.monotonic() + 40
        while not caught_while_fetching(again):
            assert time.monotonic() < end, f"no state came to the node: {launched.story()}"
            time.sleep(0.0005)
        os.kill(again, signal.SIGKILL)
        launched.until(lambda: len(launched.events("NodeJoined")) == 3)
        launched.until(lambda: launched.events("StepCommitted")[-1]["world_size"] == 4)
        launched.signal(signal.SIGTERM)
        assert launched.ended(60) == 0, launched.story()
        assert len(launched.events("NodeLost")) == 2
    state = records.FIELDS.index("state")  # another one, for the ballast
    record, alone = (
        [row[:state] + row[state + 1 :] for row in rows]
        for rows in (compared(tmp_path / "record.jsonl"), undisturbed)
    )
    assert len(record) > 4
    assert record[:STEPS] == alone[: len(record)]


def test_the_only_node_left_takes_in_a_newcomer_of_its_own(undisturbed: list[Any], tmp_path: Path) -> None:
    with started(tmp_path, slow=0.05) as launched:
        launched.until_step(5)
        launched.signal(signal.SIGSTOP)  # nobody brings the lost node back
        os.kill(launched.events("NodeJoined")[0]["pid"], signal.SIGKILL)
        launched.until(lambda: launched.events("NodeLost"))
        here = next(worker for worker in range(4) if node_of(launched, worker) == "node0")
        os.kill(launched.pid(here), signal.SIGKILL)
        launched.until(lambda: any(event["worker"] > 3 for event in launched.events("Restored")), 20)
        launched.signal(signal.SIGCONT)
        assert launched.ended(60) == 0, launched.story()
        newcomers = [event["worker"] for event in launched.events("Restored") if event["worker"] > 3]
        assert node_of(launched, newcomers[0]) == "node0"
    assert compared(tmp_path / "record.jsonl") == undisturbed


def test_the_only_worker_of_a_node_hangs_and_is_replaced(undisturbed: list[Any], tmp_path: Path) -> None:
    """Its agent sees nobody else that holds the state, but another node does."""
    flags = ("--nproc-per-node", "1", "--hang-timeout-min-s", "1", "--spares", "1")
    with started(tmp_path, *flags, slow=0.05) as launched:
        launched.until_step(5)
        alone = next(worker for worker in range(2) if node_of(launched, worker) == "node1")
        os.kill(launched.pid(alone), signal.SIGSTOP)
        launched.until(lambda: launched.events("WorkerLost"), 20)
        assert launched.ended(60) == 0, launched.story()
        (lost,) = launched.events("WorkerLost")
    assert (lost["worker"], lost["reason"]) == (alone, "hung")
    assert compared(tmp_path / "record.jsonl") == undisturbed


def test_a_worker_that_hangs_with_the_last_live_copy_is_not_waited_for_for_ever(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    flags = ("--workers", "2", "--spares", "1", "--hang-timeout-min-s", "1", "--outside-timeout-s", "3")
    with started(tmp_path, *flags, slow=0.05) as launched:
        launched.until_step(5)
        assert [node_of(launched, worker) for worker in range(2)] == ["node0", "node1"]
        os.kill(launched.pid(0), signal.SIGSTOP)
        os.kill(launched.events("NodeJoined")[0]["pid"], signal.SIGKILL)
        launched.until(lambda: launched.events("Suspected"), 20)
        assert launched.ended(60) == 0, launched.story()
        lost = {event["worker"]: event["reason"] for event in launched.events("WorkerLost")}
        assert (lost[0], lost[1]) == ("hung", "node lost"), launched.story()
    assert compared(tmp_path / "record.jsonl") == undisturbed
