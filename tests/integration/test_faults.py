"""Each fault of docs/failure-model.md, with the proof that it fired and what is promised after it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import job
from fault_jobs import SCRIPT, STEPS, Start, fault, lines, lost, sizes_of, wait_for_event, wait_for_record


def test_a_killed_worker_is_replaced_by_the_spare(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.end", "kill", rank=1, step=5)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert done.fired["fault"]["where"]["step"] == 5
    assert lost(done)[0] in [(1, "killed"), (1, "ended")], "by its exit status, or earlier by its mutex"
    assert lines(done.record) == undisturbed
    assert {line["world_size"] for line in done.record} == {2}, "the spare took over"


def test_a_hung_worker_is_killed_and_the_group_shrinks(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.begin", "stop", rank=2, step=5)]
    done = job.run(
        tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=3, faults=faults, flags=("--max-restarts", "0")
    )
    assert done.status == 0, done.output
    assert lost(done) == [(2, "hung")]
    assert done.fired
    assert [line["world_size"] for line in done.record][-1] == 2
    assert lines(done.record) == undisturbed


def test_a_worker_that_was_lost_comes_back_and_the_group_grows(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "j"
    faults = [fault("slot.begin", "kill", rank=1, step=4)]
    process = start("--steps", 10_000, "--sleep", 0.05, nproc=2, faults=faults)
    sizes = wait_for_record(directory, lambda record: sizes_of(record) == [2, 1, 2])
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert list((directory / "fired").iterdir()), "the fault fired"
    assert [line["step"] for line in sizes] == list(range(len(sizes)))


def test_an_exception_in_a_slot_is_retried_once(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.begin", "raise", step=5, slot=2)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, faults=faults)
    assert done.status == 0, done.output
    assert done.fired
    assert not lost(done)
    assert lines(done.record) == undisturbed


def test_the_same_exception_again_stops_the_job_with_its_traceback_once(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--bug", 5, nproc=2, spares=1)
    assert done.status == 1
    assert done.output.count('raise KeyError("the user\'s own bug")') == 1, done.output
    assert "step 5" in done.output
    assert len(done.record) == 5
    assert [p.name for p in (tmp_path / "j" / "checkpoints").iterdir()] == ["step-00000005"]
    assert len(done.happened("WorkerStarted")) == 3, "spares were not used up"


def test_who_is_late_with_the_last_good_step_ends_it_before_it_saves(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--late", 4, "--bug", 5, nproc=2)
    assert done.status == 1
    assert [p.name for p in (tmp_path / "j" / "checkpoints").iterdir()] == ["step-00000005"]


def test_an_exception_after_the_commit_costs_a_copy(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("apply.end", "raise", rank=1, step=5)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, faults=faults)
    assert done.status == 0, done.output
    assert done.fired
    assert not lost(done)
    assert lines(done.record) == undisturbed


def test_out_of_memory_moves_the_slots(undisturbed: list[Any], tmp_path: Path) -> None:
    faults = [fault("slot.begin", "oom", rank=1, step=5)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert lost(done)[0][0] == 1
    assert lines(done.record) == undisturbed


def test_out_of_memory_again_at_the_same_slot_stops_the_job(tmp_path: Path) -> None:
    faults = [fault("slot.begin", "oom", step=5, slot=2, times=9)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, spares=1, faults=faults)
    assert done.status == 1, done.output
    assert len(done.fired) == 2
    assert "MemoryError" in done.output


@pytest.mark.parametrize("action", ["segv", "exit"])
def test_a_crash_and_an_early_exit_are_like_a_kill(
    action: str, undisturbed: list[Any], tmp_path: Path
) -> None:
    faults = [fault("slot.end", action, rank=0, step=5)]
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, spares=1, faults=faults)
    assert done.status == 0, done.output
    assert done.fired
    assert lost(done)[0][0] == 0
    assert lines(done.record) == undisturbed


def test_a_nan_loss_stops_the_job_with_step_and_slot(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--nan", 6, nproc=2)
    assert done.status == 1
    assert "step 6, slot 1 is nan" in done.output
    assert len(done.record) == 6


def test_a_worker_with_other_bits_stops_the_job(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--diverge", 4, nproc=2)
    assert done.status == 1
    assert "step 4" in done.output
    assert "state" in done.output, done.output


def test_a_worker_with_another_model_is_refused_and_the_job_goes_on(start: Start, tmp_path: Path) -> None:
    faults = [fault("slot.begin", "kill", rank=1, step=4)]
    process = start("--steps", 10_000, "--sleep", 0.05, "--odd-from-worker", 2, nproc=2, faults=faults)
    wait_for_event(tmp_path / "j", lambda event: event["event"] == "WorkerLost" and event["worker"] == 2)
    steps = len(wait_for_record(tmp_path / "j", lambda record: True))
    wait_for_record(tmp_path / "j", lambda record: len(record) > steps + 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "refused" in output.lower(), output
    assert "state." in output, "the first difference is named"


def test_a_worker_with_another_model_at_the_start_stops_the_job(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--odd-from-worker", 1, nproc=2)
    assert done.status == 1
    assert "state." in done.output
    assert not (tmp_path / "j" / "checkpoints").exists() or not done.record


def test_a_script_that_fails_on_import_shows_its_traceback_once(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--import-error", nproc=3)
    assert done.status == 1
    assert done.output.count("    import a_module_that_is_missing") == 1, done.output


def test_an_exit_at_a_fixed_step_does_not_eat_the_spares(tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, "--exit-early", 5, nproc=2, spares=1)
    assert done.status != 0
    assert len(done.happened("WorkerStarted")) <= 5, done.output


def test_a_killed_agent_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "j"
    process = start("--steps", 10_000, nproc=2)
    wait_for_record(directory, lambda record: len(record) > 3)
    os.kill(json.loads((directory / "agent.json").read_text())["pid"], signal.SIGKILL)
    process.communicate(timeout=20)
    job.assert_nothing_left(directory)


def test_the_first_signal_drains_and_a_resume_goes_on(
    start: Start, undisturbed: list[Any], tmp_path: Path
) -> None:
    directory = tmp_path / "j"
    process = start("--steps", STEPS, "--sleep", 0.2, nproc=2)
    wait_for_record(directory, lambda record: len(record) > 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    job.assert_nothing_left(directory)
    committed = len((directory / "record.jsonl").read_text().splitlines())
    assert 3 <= committed < STEPS
    again = job.run(directory, SCRIPT, "--steps", STEPS, nproc=3, flags=("--resume",))
    assert again.status == 0, again.output
    assert lines(again.record) == undisturbed


def test_the_second_signal_kills(start: Start, tmp_path: Path) -> None:
    directory = tmp_path / "j"
    process = start("--steps", 10_000, "--sleep", 5, nproc=2)
    end = time.monotonic() + 60
    while (
        not (directory / "events.jsonl").exists()
        or "ViewInstalled" not in (directory / "events.jsonl").read_text()
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, output
    job.assert_nothing_left(directory)
