"""Random schedules of faults on two nodes, whole nodes among them, leave the undisturbed record, bit for bit.

The agent of one node, the coordinator's or the other one, is killed at a random point of a step, in some
schedules twice, beside the faults of single workers; it comes back after a second.
HPRESIL_TEST_NODE_SCHEDULES sets how many schedules run.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import job
import records
from records import MODELS, compared

STEPS = 12
SCHEDULES = int(os.environ.get("HPRESIL_TEST_NODE_SCHEDULES", "8"))
# The last copy of the state may be in a worker that was stopped: it is spared for that long.
FLAGS = ("--local-nodes", "2", "--workers", "3", "--outside-timeout-s", "5")

POINTS = (
    "slot.begin", "slot.end", "reduce.begin", "reduce.exchanged", "vote.counted", "apply.begin", "apply.end",
    "block.end", "step.begin", "regroup.view", "regroup.group", "restore.begin", "restore.end", "serve.end",
)  # fmt: skip


def schedule(seed: int) -> list[dict[str, Any]]:
    rng = random.Random(10_000 + seed)
    node: dict[str, Any] = {"id": "node", "action": "lose_node", "node": seed // 2 % 2}
    node.update(point=rng.choice(POINTS[:9]), step=rng.randrange(3, STEPS - 3))
    later = [{"point": rng.choice(POINTS), "from_step": rng.randrange(node["step"], STEPS - 2)} for _ in "12"]
    # At most one worker beside the node: with two, nobody might be left that holds the state.
    worker = {"id": "worker", "action": rng.choice(("kill", "stop", "segv")), **later[0]}
    again = {"id": "again", "action": "lose_node", "node": node["node"], **later[1]}
    return [node, *rng.choice(([], [worker], [again], [worker, again]))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, records.Compared]:
    return {script: records.undisturbed(tmp_path_factory.mktemp("alone"), script, STEPS) for script in MODELS}


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_random_schedule_with_lost_nodes_does_not_show(
    seed: int, undisturbed: dict[str, records.Compared], tmp_path: Path
) -> None:
    script, faults = MODELS[seed % 2], schedule(seed)
    print(f"seed {seed}: {faults}")
    done = job.run(tmp_path / "job", script, "--steps", STEPS, nproc=2, spares=1, flags=FLAGS, faults=faults)
    assert done.status == 0, f"{done.output}\n{job.logs(done.directory)}"
    # The second loss can come first: the end of a block bears the version of the next step.
    assert {"node", "again"} & done.fired.keys(), f"no fault fired at the node: {faults}"
    assert done.happened("NodeLost"), "the loss of the node was not noticed as such"
    assert compared(done.record) == undisturbed[script]
    print(f"fired: {sorted(done.fired)}")
