"""Jobs that end before their last step: by an error, by a signal, by their agent's death."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from launched import Launched
from puppets import LONG, TWO, all_gone, children_of, with_fault


def test_results_that_differ_stop_the_job(tmp_path):
    with with_fault(tmp_path, "diverge") as job:
        assert job.ended() == 1
    assert "Divergence: step 10: loss is" in " ".join(job.stderr.replace("│", " ").split())


def test_a_frame_that_no_machine_can_hold_is_a_clear_error(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, "--frame-bytes", str(1 << 50), flags=TWO) as job:
        assert job.ended() == 1
    assert "no memory for snapshots: 2 frames of 1073741824 MiB each" in job.stderr


def test_the_first_signal_drains(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, flags=TWO) as job:
        job.until_step(3)
        job.signal(signal.SIGINT)
        assert job.ended() == 0, job.story()
    assert "SIGINT: finishing the step and saving" in job.stderr
    (saved,) = job.events("Saved")
    assert Path(saved["path"]).is_dir()
    refused = subprocess.run(job.command, env=job.env, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "pass --resume to continue it" in refused.stderr


def test_a_directory_without_a_whole_checkpoint_cannot_be_resumed(tmp_path):
    (tmp_path / "run" / "checkpoints" / "step-00000005").mkdir(parents=True)
    with Launched(tmp_path, "puppet.py", flags=("--resume",)) as job:
        assert job.ended(60) == 2
    assert "holds no complete checkpoint" in job.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_kills(tmp_path, number):
    faults = ("--fault", "0:5:sleep", "--fault", "1:5:sleep")
    with Launched(tmp_path, "puppet.py", *LONG, *faults, flags=TWO) as job:
        job.until(lambda: (job.run_dir / "fired-0").exists() and (job.run_dir / "fired-1").exists())
        job.signal(number)
        job.until(lambda: job.events("DrainRequested"))
        job.signal(number)
        assert job.ended(10) == 128 + number, job.story()


def test_when_the_agent_is_killed_nothing_is_left(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, "--children", flags=TWO) as job:
        job.until_step(2)
        family = children_of(job.process.pid)
        assert job.facts()["guardian"] in family
        assert len(family) == 9  # a guardian, two workers with three children each
        job.signal(signal.SIGKILL)
        job.process.wait()
        assert all_gone(family), job.story()


def test_a_guardian_that_dies_is_replaced(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, "--children", flags=("--nproc-per-node", "1")) as job:
        job.until_step(2)
        first = job.facts()["guardian"]
        os.kill(first, signal.SIGKILL)
        job.until(lambda: any("guardian.py" in words(pid) for pid in children_of(job.process.pid) - {first}))
        family = children_of(job.process.pid)
        job.signal(signal.SIGKILL)
        job.process.wait()
        assert all_gone(family), job.story()


def words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
