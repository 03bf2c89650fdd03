"""Random fault schedules leave the record of the undisturbed one-worker run, bit for bit.

Each schedule has one to three faults of the kinds below, at random points of the step; its seed is in the
test's name. The first one may hit anything a step does, later ones also what a recovery does.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import job
import records
from records import MODELS, compared

STEPS = 12
SCHEDULES = 32

STEP_POINTS = (
    "slot.begin", "slot.end", "reduce.begin", "reduce.exchanged", "vote.counted", "apply.begin", "apply.end",
    "block.end", "step.begin",
)  # fmt: skip
RECOVERY_POINTS = (
    "regroup.view", "regroup.group", "restore.begin", "restore.rest", "restore.end", "serve.begin",
    "serve.end",
)  # fmt: skip
USER_POINTS = ("slot.begin", "slot.end", "apply.end")


def schedule(seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    faults: list[dict[str, Any]] = []
    for number in range(rng.choice((1, 1, 2, 2, 3))):
        step = rng.randrange(4, STEPS - 2)
        fault: dict[str, Any] = {"id": f"fault{number}", "rank": rng.randrange(3)}
        if number and rng.random() < 0.5:
            fault.update(point=rng.choice(RECOVERY_POINTS), from_step=faults[0].get("step", 4), action="kill")
            del fault["rank"]
        else:
            fault.update(
                point=rng.choice(STEP_POINTS),
                step=step,
                action=rng.choice(("kill", "kill", "stop", "segv", "exit")),
            )
            if rng.random() < 0.3:
                fault.update(point=rng.choice(USER_POINTS), action=rng.choice(("raise", "raise", "oom")))
        faults.append(fault)
    return faults


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, records.Compared]:
    return {script: records.undisturbed(tmp_path_factory.mktemp("alone"), script, STEPS) for script in MODELS}


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("script", MODELS)
def test_every_world_size_gives_the_same_record(
    workers: int, script: str, undisturbed: dict[str, records.Compared], tmp_path: Path
) -> None:
    done = job.run(tmp_path / "job", script, "--steps", STEPS, nproc=workers)
    assert done.status == 0, done.output
    assert compared(done.record) == undisturbed[script]
    assert {line["world_size"] for line in done.record} == {workers}


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_random_schedule_of_faults_does_not_show(
    seed: int, undisturbed: dict[str, records.Compared], tmp_path: Path
) -> None:
    script, faults = MODELS[seed % 2], schedule(seed)
    print(f"seed {seed}: {faults}")
    done = job.run(tmp_path / "job", script, "--steps", STEPS, nproc=3, spares=1, faults=faults)
    assert done.status == 0, f"{done.output}\n{job.logs(done.directory)}"
    assert "fault0" in done.fired, f"the first fault did not fire: {faults}"
    assert compared(done.record) == undisturbed[script]
    print(f"fired: {sorted(done.fired)}")
