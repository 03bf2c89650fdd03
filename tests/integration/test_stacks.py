"""A worker that hangs: it is told in which way, and its stacks are kept, before it is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import job

SCRIPT = "train_stuck.py"
STEPS = 10
FIELDS = ("step", "loss", "grad_norm", "state", "samples")
NO_RESTART = ("--max-restarts", "0")


def lines(record: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in FIELDS) for line in record]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return lines(done.record)


def hung(done: job.Job) -> dict[str, Any]:
    (event,) = done.happened("WorkerLost")
    assert (event["worker"], event["reason"]) == (2, "hung")
    return event


def stacks_of(done: job.Job) -> str:
    """The hung worker's stacks: their file is in the run directory, and message and event name it."""
    path = done.directory / "logs" / "worker-2.stacks"
    assert hung(done)["stacks"] == str(path)
    assert str(path) in done.output, done.output
    return path.read_text()


def assert_nothing_shows(done: job.Job, undisturbed: list[tuple[Any, ...]]) -> None:
    assert done.status == 0, done.output
    assert lines(done.record) == undisturbed
    assert done.record[-1]["world_size"] == 2, "the group shrank"


@pytest.mark.parametrize(
    ("stuck", "why", "native_call"),
    [("python", "the GIL is free", "nanosleep"), ("native", "the GIL is held since", "sleep")],
)
def test_a_hung_worker_leaves_its_stacks_and_says_who_has_the_gil(
    stuck: str, why: str, native_call: str, undisturbed: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--stuck", stuck, nproc=3, flags=NO_RESTART)
    assert_nothing_shows(done, undisturbed)
    assert json.loads((done.directory / "stuck").read_text())["step"] == 5, "it got stuck"
    assert why in hung(done)["why"]
    assert why in done.output
    text = stacks_of(done)
    assert why in text
    python, native = text.split("\nNative (")
    assert "train_stuck.py" in python, text
    assert "in stand_still_here" in python, text
    assert native_call in native, text
    assert "_PyEval_EvalFrameDefault" in native, text


def test_a_stopped_worker_has_a_sentence_in_place_of_its_stacks(
    undisturbed: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    faults = [{"id": "fault", "point": "slot.begin", "action": "stop", "rank": 2, "step": 5}]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=3, faults=faults, flags=NO_RESTART)
    assert_nothing_shows(done, undisturbed)
    assert set(done.fired) == {"fault"}
    text = stacks_of(done)
    assert "No stacks: the process is stopped" in text
    assert "no thread of it has run for" in text or "stopped in" in text, text
