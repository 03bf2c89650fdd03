"""`--reduction native`: other bits at another number of workers, and every other promise as before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import job

STEPS = 12
SCRIPT = "train_small.py"
FIELDS = ("step", "loss", "grad_norm", "state", "samples")
NATIVE = ("--reduction", "native")


def lines(record: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in FIELDS) for line in record]


def samples(record: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(line["step"], line["samples"]) for line in record]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    done = job.run(tmp_path_factory.mktemp("native"), SCRIPT, "--steps", STEPS, nproc=2, flags=NATIVE)
    assert done.status == 0, done.output
    return done.record


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    done = job.run(tmp_path_factory.mktemp("canonical"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return done.record


def assert_close(record: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert samples(record) == samples(other), "not the same samples, or not each exactly once"
    for one, two in zip(record, other, strict=True):
        assert math.isclose(number(one["loss"]), number(two["loss"]), rel_tol=1e-3), (one, two)


def number(value: float | str) -> float:
    return float.fromhex(value) if isinstance(value, str) else value


def test_the_curve_is_that_of_the_canonical_sum_within_rounding(
    undisturbed: list[dict[str, Any]], canonical: list[dict[str, Any]]
) -> None:
    assert_close(undisturbed, canonical)


def test_the_same_run_again_gives_the_same_bits(undisturbed: list[dict[str, Any]], tmp_path: Path) -> None:
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, flags=NATIVE)
    assert done.status == 0, done.output
    assert lines(done.record) == lines(undisturbed)


@pytest.mark.parametrize("point", ["slot.end", "reduce.begin", "reduce.exchanged", "vote.counted"])
def test_a_worker_that_dies_around_the_reduction_costs_no_sample_and_no_step(
    point: str, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Slots move, so the sums of that step have another order: what was committed before has equal bits."""
    step = 6
    fault = {"id": "fault", "point": point, "action": "kill", "rank": 1, "step": step}
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, spares=1, flags=NATIVE, faults=[fault])
    assert done.status == 0, f"{done.output}\n{job.logs(done.directory)}"
    assert done.fired
    before = sum(line["generation"] == 1 for line in done.record)
    assert before >= step - 1, "the last step before the fault may be made again, and no other one"
    assert lines(done.record)[:before] == lines(undisturbed)[:before]
    assert_close(done.record, undisturbed)


def test_a_group_that_shrinks_and_grows_uses_every_sample_once_and_stays_of_one_mind(
    canonical: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Members with other bits than the rest would stop the job: every report of a step is compared."""
    faults = [
        {"id": "one", "point": "reduce.begin", "action": "kill", "rank": 2, "step": 3},
        {"id": "two", "point": "reduce.exchanged", "action": "kill", "rank": 0, "from_step": 5},
    ]
    done = job.run(
        tmp_path / "j", SCRIPT, "--steps", STEPS, "--sleep", 0.05, nproc=3, flags=NATIVE, faults=faults
    )
    assert done.status == 0, f"{done.output}\n{job.logs(done.directory)}"
    assert len(done.fired) == 2
    assert {len(view["members"]) for view in done.happened("ViewInstalled")} >= {2, 3}
    assert_close(done.record, canonical)


def test_a_job_is_resumed_with_its_own_reduction_only(tmp_path: Path) -> None:
    fault = {"id": "fault", "point": "slot.begin", "action": "kill", "rank": 1, "step": 5}
    flags = (*NATIVE, "--min-workers", "2", "--max-restarts", "0", "--min-workers-timeout-s", "1")
    done = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, faults=[fault], flags=flags)
    assert done.status == 1, done.output
    other = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, flags=("--resume",))
    assert other.status != 0
    assert "config.reduction = native, this one has canonical" in other.output, other.output
    again = job.run(tmp_path / "j", SCRIPT, "--steps", STEPS, nproc=2, flags=("--resume", *NATIVE))
    assert again.status == 0, again.output
    assert [step for step, _ in samples(again.record)] == list(range(STEPS))
