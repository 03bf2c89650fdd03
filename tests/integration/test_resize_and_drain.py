"""Asking a running job for another size, or for a node back: same bits, no step made again, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import job
from launched import Launched

SCRIPT = "train_small.py"
STEPS = 40
FIELDS = ("step", "loss", "grad_norm", "state", "samples")
ANSWER_S = 60


def lines(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line)[name] for name in FIELDS) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return lines(done.directory / "record.jsonl")


def started(directory: Path, *flags: str, slow: float = 0.05) -> Launched:
    flags = ("--record", str(directory / "record.jsonl"), "--record-state-every", "1", *flags)
    arguments = ("--steps", str(STEPS), "--sleep", str(slow))
    return Launched(directory, SCRIPT, *arguments, flags=flags, start_method="forkserver")


def ask(launched: Launched, *words: str, run_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a verb of the command line against the job."""
    command = [*job.COMMAND, *words, "--run-dir", str(run_dir or launched.run_dir)]
    return subprocess.run(
        command, env=launched.env, capture_output=True, text=True, timeout=ANSWER_S, check=False
    )


def done(launched: Launched, *words: str, run_dir: Path | None = None) -> str:
    answer = ask(launched, *words, run_dir=run_dir)
    assert answer.returncode == 0, f"{answer}\n{launched.story()}"
    return answer.stdout.strip()


def refused(launched: Launched, *words: str) -> str:
    answer = ask(launched, *words)
    assert (answer.returncode, answer.stdout) == (1, ""), answer
    return answer.stderr.strip()


def assert_nothing_shows(launched: Launched, undisturbed: list[Any]) -> None:
    """No worker was lost, no step was made again, and the record is that of one worker."""
    assert lines(launched.directory / "record.jsonl") == undisturbed
    assert launched.events("WorkerLost") == launched.events("NodeLost") == []
    committed = [event["step"] for event in launched.events("StepCommitted")]
    assert committed == list(range(STEPS))
    assert {event["status"] for event in launched.events("WorkerLeft")} == {0}
    newest = -1
    for event in launched.events():
        if event["event"] == "StepCommitted":
            newest = event["step"]
        elif event["event"] == "Decided":
            assert event["target"] > newest, f"a step was made again: {event}"


def test_a_group_is_resized_while_it_trains(undisturbed: list[Any], tmp_path: Path) -> None:
    with started(tmp_path, "--nproc-per-node", "4", "--workers", "2", slow=0.2) as launched:
        launched.until_step(3)
        assert done(launched, "resize", "4") == "the group has 4 workers"
        assert done(launched, "resize", "1") == "the group has 1 worker"
        assert done(launched, "resize", "2") == "the group has 2 workers"
        assert "4 slots has work for at most 4" in refused(launched, "resize", "5")
        assert "no other node" in refused(launched, "drain", launched.facts()["node"])
        assert launched.ended(60) == 0, launched.story()
        assert_nothing_shows(launched, undisturbed)
        resized = [(event["workers"], len(event["members"])) for event in launched.events("Resized")]
        assert resized == [(4, 4), (1, 1), (2, 2)]


def test_a_member_that_becomes_a_spare_can_become_a_member_again(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    flags = ("--nproc-per-node", "3", "--workers", "2", "--spares", "1", "--max-restarts", "0")
    with started(tmp_path, *flags) as launched:
        launched.until_step(3)
        launched.until(lambda: [e for e in launched.events("WorkerReady") if not e["pristine"]])
        os.kill(launched.pid(1), signal.SIGKILL)  # the spare is used up: a place in reserve is free
        launched.until(lambda: len(launched.events("ViewInstalled")) == 2)
        done(launched, "resize", "1")
        reserve = set(launched.events("ViewInstalled")[1]["members"]) - set(
            launched.events("ViewInstalled")[-1]["members"]
        )
        done(launched, "resize", "2")
        assert set(launched.events("ViewInstalled")[-1]["members"]) & reserve
        assert launched.ended(60) == 0, launched.story()
    assert lines(tmp_path / "record.jsonl") == undisturbed


TWO_NODES = ("--local-nodes", "2", "--nproc-per-node", "2")


def test_a_drained_node_leaves_and_stays_away(undisturbed: list[Any], tmp_path: Path) -> None:
    with started(tmp_path, *TWO_NODES, slow=0.1) as launched:
        launched.until_step(3)
        pid = launched.events("NodeJoined")[0]["pid"]
        assert "there is no such node; there are: node0, node1" in refused(launched, "drain", "node7")
        assert done(launched, "drain", "node1", run_dir=launched.run_dir / "nodes" / "node1") == (
            "node node1 is drained"
        )
        assert "it was drained and has left" in refused(launched, "drain", "node1")
        launched.until_step(launched.events("StepCommitted")[-1]["step"] + 10)  # longer than a node's return
        assert not Path(f"/proc/{pid}").exists(), "the agent of a drained node is still there"
        assert launched.ended(60) == 0, launched.story()
        assert_nothing_shows(launched, undisturbed)
        assert len(launched.events("NodeJoined")) == 1, "a drained node was brought back"
        assert [e["node"] for e in launched.events("NodeDraining")] == ["node1"]
        assert [e["node"] for e in launched.events("NodeDrained")] == ["node1"]
        assert [len(view["members"]) for view in launched.events("ViewInstalled")] == [4, 2]
    assert "node node1 is drained: its workers have left the job" in launched.stderr


def test_the_state_moves_before_the_only_node_that_has_it_is_drained(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    """All members are on the coordinator's node, so a spare of the other node has to copy first."""
    flags = ("--local-nodes", "2", "--nproc-per-node", "1", "--workers", "1", "--spares", "1")
    with started(tmp_path, *flags) as launched:
        launched.until_step(3)
        text = done(launched, "drain", "node0")
        assert text == (
            "node node0 is drained; its agent stays without workers, because the coordinator lives in it"
        )
        assert launched.ended(60) == 0, launched.story()
        assert_nothing_shows(launched, undisturbed)
        sizes = [len(view["members"]) for view in launched.events("ViewInstalled")]
        assert sizes == [1, 2, 1], "the newcomer copies while the old member is still in"
