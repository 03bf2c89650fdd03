"""A disk that is full, or fills while a job runs: nothing that was promised is lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import job
import records
from hpresil.checkpoint import saved
from hpresil.telemetry import story
from records import compared
from small_disk import mounts_or_skip, on_a_small_disk

SCRIPT = "train_small.py"
STEPS = 24


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> records.Compared:
    mounts_or_skip()
    return records.undisturbed(tmp_path_factory.mktemp("alone"), SCRIPT, STEPS)


def test_a_disk_that_fills_ends_the_job_in_words_and_what_was_saved_before_goes_on(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    run, after = tmp_path / "run", tmp_path / "after"
    drained = job.run(run, SCRIPT, "--steps", STEPS, "--drain", 5)
    assert drained.status == 0, drained.output
    old = saved.newest(run / "checkpoints")
    assert old is not None

    arguments = ("--steps", STEPS, "--fill", 10, "--disk", run, "--sleep", 0.03)
    small = on_a_small_disk(run, after)
    ended = job.run(run, SCRIPT, *arguments, nproc=2, flags=("--resume",), inside=small)
    assert ended.status == 1, ended.output
    assert "events.jsonl cannot be written (No space left on device): the job goes on" in ended.output
    assert "cannot be written: No space left on device; make room there" in ended.output or (
        "cannot write step" in ended.output
    )
    assert "the state could not be saved" in ended.output
    assert "lines are missing at the end of" in ended.output
    assert "Traceback" not in ended.output
    newest = saved.newest(after / "checkpoints")
    assert newest is not None
    assert newest.name == old.name, "a save that failed replaced a checkpoint"
    saved.load(newest)
    assert story.read(after).end > 0
    assert not [path for path in (after / "checkpoints").iterdir() if path.name.startswith(".")]

    again = job.run(after, SCRIPT, "--steps", STEPS, nproc=2, flags=("--resume",))
    assert again.status == 0, again.output
    assert compared(again.record) == undisturbed


def test_a_job_does_not_start_on_a_full_disk(undisturbed: list[Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = on_a_small_disk(run, tmp_path / "after", size="64k", full=True)
    done = job.run(run, SCRIPT, "--steps", 3, inside=small)
    assert done.status == 2, done.output
    assert "No space left on device" in done.output
    assert "Traceback" not in done.output


def test_a_full_disk_of_another_node_costs_what_it_writes_down(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    run, disk = tmp_path / "run", tmp_path / "run" / "nodes"
    flags = ("--local-nodes", "2", "--nproc-per-node", "1", "--workers", "2")
    arguments = ("--steps", STEPS, "--fill", 5, "--disk", disk, "--sleep", 0.05)
    done = job.run(run, SCRIPT, *arguments, flags=flags, inside=on_a_small_disk(disk, tmp_path / "after"))
    assert done.status == 0, done.output
    assert "cannot be written (No space left on device); its trace may lack spans" in done.output
    assert compared(done.record) == undisturbed


def test_shared_memory_that_is_full_harms_nothing(undisturbed: list[Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = on_a_small_disk(Path("/dev/shm"), None, size="16k", full=True)
    faults = [{"id": "loss", "point": "slot.end", "action": "kill", "rank": 1, "step": 8}]
    done = job.run(run, SCRIPT, "--steps", STEPS, nproc=2, spares=1, faults=faults, inside=small)
    assert done.status == 0, done.output
    assert "loss" in done.fired
    assert compared(done.record) == undisturbed
