"""Faults of docs/failure-model.md that meet spares, newcomers and sources, or come several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import job
from fault_jobs import SCRIPT, STEPS, fault, lines, lost


def test_a_spare_that_dies_does_not_pause_training(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("standby.begin", "kill")]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--sleep", 0.1, nproc=2, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert lost(done)[0][0] == 2
    assert {line["generation"] for line in done.record} == {1}
    assert lines(done.record) == undisturbed


@pytest.mark.parametrize("point", ["restore.begin", "serve.begin", "regroup.view", "regroup.group"])
def test_a_second_fault_during_recovery_does_not_show(
    point: str, undisturbed: list[Any], tmp_path: Path
) -> None:
    # Some may still be at the end of step 4 when another is killed in step 5.
    second = {"id": "second", "point": point, "action": "kill", "from_step": 4}
    if point == "regroup.group":
        second = {"id": "second", "point": point, "action": "kill", "worker": 3}
    if point == "regroup.view":
        second["rank"] = 0
    faults = [fault("slot.begin", "kill", rank=1, step=5), second]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=3, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert set(done.fired) == {"fault", "second"}
    assert lines(done.record) == undisturbed


@pytest.mark.parametrize("section", ["parameters", "optimizer"])
def test_a_damaged_frame_is_refused_and_copied_again(
    section: str, undisturbed: list[Any], tmp_path: Path
) -> None:
    """Whether that is seen before the newcomer computes, or while it does."""
    faults = [fault("slot.begin", "kill", rank=1, step=5)]
    flags = ("--steps", STEPS, "--damage", section)
    done = job.run(tmp_path / "j", SCRIPT, *flags, nproc=2, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert (tmp_path / "j" / "damaged").exists(), "the frame was damaged"
    assert "could not copy the state" in done.output
    assert lines(done.record) == undisturbed


@pytest.mark.parametrize("victim", ["newcomer", "source"])
def test_a_second_fault_while_a_state_arrives_does_not_show(
    victim: str, undisturbed: list[Any], tmp_path: Path
) -> None:
    """The newcomer computes with a version and does not have all of it yet.

    It is version 4 if nobody but the killed worker has applied step 4 by then.
    """
    slow = {"id": "slow", "point": "restore.rest", "action": "sleep", "seconds": 1.0, "from_step": 4}
    second = {"id": "second", "action": "kill", "point": "slot.end" if victim == "newcomer" else "serve.end"}
    where = {"worker": 3, "from_step": 4} if victim == "newcomer" else {"from_step": 4}
    faults = [fault("slot.begin", "kill", rank=1, step=5), slow, {**second, **where}]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=3, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert {"slow", "second"} <= set(done.fired)
    assert lines(done.record) == undisturbed


def test_two_workers_lost_at_once(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [
        {"id": "one", "point": "reduce.begin", "action": "kill", "rank": 0, "step": 5},
        {"id": "two", "point": "reduce.begin", "action": "kill", "rank": 1, "step": 5},
    ]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=3, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert set(done.fired) == {"one", "two"}
    assert lines(done.record) == undisturbed


def test_too_few_workers_save_and_stop_and_a_resume_goes_on(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.begin", "kill", rank=1, step=5)]
    flags = ("--min-workers", "2", "--max-restarts", "0")
    done = job.run(
        tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, faults=faults, flags=flags,
        HPRESIL_MIN_WORKERS_TIMEOUT_S="1",
    )  # fmt: skip
    assert done.status == 1
    assert done.fired
    assert "at least 2" in done.output or "min-workers" in done.output
    # The survivor may not have heard yet that step 4 was committed; then it is version 4 that it saves.
    assert "step-00000005" in done.output or "step-00000004" in done.output, done.output
    again = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, flags=("--resume",))
    assert again.status == 0, again.output
    assert lines(again.record) == undisturbed


def test_all_workers_lost_go_on_from_the_agents_memory(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [
        {"id": f"kill{worker}", "point": "slot.begin", "action": "kill", "worker": worker, "from_step": 5}
        for worker in (0, 1)
    ]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, faults=faults)
    assert done.status == 0, done.output
    assert len(done.fired) == 2
    assert lines(done.record) == undisturbed


def test_a_snapshot_outlives_the_only_worker(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.begin", "kill", rank=0, step=7)]
    flags = ("--snapshot-every", "2")
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=1, faults=faults, flags=flags)
    assert done.status == 0, done.output
    assert done.fired
    decided = [e["target"] for e in done.happened("Decided")]
    assert decided[-1] >= 4, "it went on from a snapshot of its own, not from the start"
    assert lines(done.record) == undisturbed


def test_all_state_lost_is_an_error_that_names_it(tmp_path: Path) -> None:
    faults = [fault("slot.begin", "kill", rank=0, step=5)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=1, faults=faults)
    assert done.status == 1
    reported = len(done.record)
    assert reported in (4, 5), "it did not start again from zero; its last report may have died with it"
    assert f"version {reported} of the training state is lost" in done.output, done.output
