"""Each fault of docs/failure-model.md, with the proof that it fired and what is promised after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import job

SCRIPT = "train_small.py"
STEPS = 10
Start = Callable[..., subprocess.Popen[str]]
FIELDS = ("step", "loss", "grad_norm", "state", "samples")


def lines(record: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in FIELDS) for line in record]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return lines(done.record)


def fault(point: str, action: str, **where: Any) -> dict[str, Any]:
    return {"id": "fault", "point": point, "action": action, **where}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start jobs in the background, and end those that a failed test leaves running."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object, nproc: int, faults: list[dict[str, Any]] | None = None) -> subprocess.Popen[str]:
        directory = tmp_path / "j"
        directory.mkdir()
        process = subprocess.Popen(
            job.arguments(directory, SCRIPT, *args, nproc=nproc),
            env=job.environment(directory, faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # the guardian ends what the agent leaves
        process.communicate(timeout=20)


def wait_for_record(
    directory: Path, ready: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 100.0
) -> list[dict[str, Any]]:
    """Wait until the record of a running job satisfies ``ready`` and return it."""
    end, path = time.monotonic() + timeout_s, directory / "record.jsonl"
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        record = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if ready(record):
            return record
        time.sleep(0.02)
    raise AssertionError(f"the record did not get there within {timeout_s} s\n{job.logs(directory)}")


def wait_for_event(
    directory: Path, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 100.0
) -> None:
    """Wait until an event of a running job is as ``wanted``."""
    end, path = time.monotonic() + timeout_s, directory / "events.jsonl"
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        if any(wanted(json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(f"the event did not come within {timeout_s} s\n{job.logs(directory)}")


def sizes_of(record: list[dict[str, Any]]) -> list[int]:
    """Return the world sizes a record went through, repeats left out."""
    sizes = [line["world_size"] for line in record]
    return [size for i, size in enumerate(sizes) if i == 0 or size != sizes[i - 1]]


def lost(done: job.Job) -> list[tuple[int, str]]:
    return [(e["worker"], e["reason"]) for e in done.happened("WorkerLost")]


# ------------------------------------------------------------------ a worker


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


# ------------------------------------------------------------------ spares, newcomers, sources


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


# ------------------------------------------------------------------ several at once


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
    assert "version 5" in done.output, done.output
    assert "lost" in done.output
    assert len(done.record) == 5, "it did not start again from zero"


# ------------------------------------------------------------------ the agent and the job


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
