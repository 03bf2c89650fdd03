"""The coordinator's node is lost, cut off or stopped, and the job goes on without it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import job
from launched import Launched

SCRIPT = "train_small.py"
STEPS = 40
FIELDS = ("step", "loss", "grad_norm", "state", "samples")
TWO_NODES = ("--local-nodes", "2", "--nproc-per-node", "2", "--record-state-every", "1")


def lines(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(json.loads(line)[name] for name in FIELDS) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return lines(done.directory / "record.jsonl")


def started(directory: Path, *flags: str, slow: float = 0.12) -> Launched:
    record = str(directory / "record.jsonl")
    arguments = ("--steps", str(STEPS), "--sleep", str(slow))
    return Launched(
        directory, SCRIPT, *arguments, flags=(*flags, "--record", record), start_method="forkserver"
    )


def test_when_the_coordinators_node_is_lost_another_takes_over_and_the_bits_stay(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    with started(tmp_path, *TWO_NODES) as launched:
        launched.until_step(5)
        os.kill(launched.facts()["pid"], signal.SIGKILL)
        (moved,) = launched.until(lambda: launched.events("CoordinatorMoved"))
        assert (moved["was"], moved["node"], moved["term"]) == ("node0", "node1", 2)
        launched.until(lambda: launched.events("NodeJoined")[-1]["node"] == "node0")
        assert launched.ended(60) == 0, launched.story()
        sizes = [len(view["members"]) for view in launched.events("ViewInstalled")]
    assert (sizes[0], min(sizes), sizes[-1]) == (4, 2, 4), f"lost, then grown back: {sizes}"
    assert lines(tmp_path / "record.jsonl") == undisturbed
