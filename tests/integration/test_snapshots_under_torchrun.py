"""Under plain torchrun a job goes on from memory after a worker dies, to the same bits, and cleans up."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import hpresil

ROOT = Path(__file__).parents[2]
HOME = Path(f"/dev/shm/hpresil-{os.getuid()}")


def torchrun(directory, *flags):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPRESIL_")}
    environment |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # see the script
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hpresil.__file__).parents[1])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = ROOT / "examples" / "snapshots_under_torchrun.py"
    with subprocess.Popen(
        [*launcher, "--max-restarts=1", script, "--steps=9", *flags],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        out, err = agent.communicate(timeout=100)
    assert agent.returncode == 0, err
    return out, agent.pid


def left_behind(agent):
    return list(HOME.glob(f"*-{agent}-*")) if HOME.exists() else []


def only_an_empty_directory():
    try:
        return not any(HOME.iterdir())
    except FileNotFoundError:
        return False


def test_a_worker_that_dies_changes_nothing_in_the_result(tmp_path):
    plain, agent = torchrun(tmp_path)
    assert "goes on from" not in plain
    out, killed = torchrun(tmp_path, "--die-at=6")
    found = re.search(r"goes on from version (\d+)", out)
    assert found, out
    assert int(found[1]) in (5, 6), "the version before the kill, or the one that was being copied"
    assert out.splitlines()[-1] == plain.splitlines()[-1]
    deadline = time.monotonic() + 20
    while (left_behind(agent) or left_behind(killed)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind(agent) + left_behind(killed)
    while only_an_empty_directory() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not only_an_empty_directory()
