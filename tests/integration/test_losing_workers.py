"""Workers that die, hang, crash, raise or talk nonsense: what is told of it, and what is cleaned up."""

import os
import signal

import pytest

from hpresil.telemetry.recovery import recoveries
from launched import Launched
from puppets import LONG, TWO, all_gone, children_of, lost, with_fault


def test_a_killed_workers_rank_goes_to_the_spare(tmp_path):
    with with_fault(tmp_path, "kill") as job:
        assert job.ended() == 0, job.story()
    fault = float((job.run_dir / "fired-1").read_text())
    found = lost(job, 1)
    why = {("killed", -9): "killed by SIGKILL", ("ended", None): "ended"}  # the latter: by its mutex, earlier
    assert (found["step"], found["slot"]) == (10, 1)
    assert found["armed"]
    assert f"worker 1 (rank 1) lost (step 10, slot 1): {why[found['reason'], found['status']]}" in job.stderr
    assert [view["members"] for view in job.events("ViewInstalled")][:2] == [[0, 1], [0, 2]]
    (recovery, *_) = recoveries(job.events(), {1: fault})
    assert recovery.kind == found["reason"]
    assert recovery.detect_ms < 500
    assert recovery.total_ms is not None


def test_a_stopped_worker_is_killed_as_hung(tmp_path):
    flags = ("--hang-timeout-min-s", "1")
    with with_fault(tmp_path, "stop", flags=flags) as job:
        assert job.ended() == 0, job.story()
    found = lost(job, 1)
    assert found["reason"] == "hung"
    assert found["why"].startswith("hung")
    assert "in computing for " in found["why"]
    assert all_gone({job.pid(1)})


def test_a_worker_that_is_stopped_while_it_waits_is_killed_as_hung(tmp_path):
    faults = ("--fault", "0:10:nap")  # so that worker 1 waits, and worker 0 not long enough to be blamed
    flags = (*TWO, "--spares", "1", "--hang-timeout-min-s", "2")
    with Launched(tmp_path, "puppet.py", "--steps", "30", *faults, flags=flags) as job:
        job.until(lambda: (job.run_dir / "fired-0").exists())
        os.kill(job.pid(1), signal.SIGSTOP)
        assert job.ended() == 0, job.story()
    assert [event["worker"] for event in job.events("WorkerLost")] == [1]
    assert lost(job, 1)["why"].startswith("hung, stopped in waiting for ")


def test_a_worker_that_makes_no_progress_is_killed_as_hung(tmp_path):
    with with_fault(tmp_path, "sleep", flags=("--hang-timeout-min-s", "1")) as job:
        assert job.ended() == 0, job.story()
    assert lost(job, 1)["why"].startswith("hung in computing for ")
    assert " at step 10 slot 1" in lost(job, 1)["why"]


def test_an_exception_in_a_step_is_shown_in_one_box(tmp_path):
    with with_fault(tmp_path, "raise") as job:
        assert job.ended() == 0, job.story()
    assert (lost(job, 1)["reason"], lost(job, 1)["status"]) == ("exited", 1)
    shown = job.stdout + job.stderr
    assert shown.count("RuntimeError: the puppet's own fault") == 1
    assert shown.count("Traceback (most recent call last)") == 1
    assert "worker 1 (rank 1), process" in shown
    assert "step 10, slot 1" in shown
    assert str(job.run_dir / "logs" / "worker-1.log") in shown
    assert "Traceback" in (job.run_dir / "logs" / "worker-1.log").read_text()


@pytest.mark.parametrize(("kind", "status"), [("exit0", 0), ("exit7", 7)])
def test_an_exit_in_a_step_is_a_loss_with_its_status(tmp_path, kind, status):
    with with_fault(tmp_path, kind) as job:
        assert job.ended() == 0, job.story()
    assert (lost(job, 1)["reason"], lost(job, 1)["status"]) == ("exited", status)
    assert f"exit status {status}" in job.stderr


def test_a_crash_leaves_pythons_stacks_in_the_log(tmp_path):
    with with_fault(tmp_path, "segv") as job:
        assert job.ended() == 0, job.story()
    assert (lost(job, 1)["reason"], lost(job, 1)["status"]) == ("killed", -signal.SIGSEGV)
    assert "killed by SIGSEGV" in job.stderr
    assert "Segmentation fault" in (job.run_dir / "logs" / "worker-1.log").read_text()


def test_a_worker_that_talks_nonsense_is_ended(tmp_path):
    with with_fault(tmp_path, "garbage") as job:
        assert job.ended() == 0, job.story()
    assert "no message" in lost(job, 1)["why"]


def test_what_a_worker_leaves_behind_goes_with_it(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, "--children", flags=(*TWO, "--spares", "1")) as job:
        job.until_step(3)
        family = children_of(job.pid(1))
        assert len(family) == 3
        own = {pid for pid in family if os.getsid(pid) == pid}  # left the session: lives until the end
        os.kill(job.pid(1), signal.SIGKILL)
        job.until(lambda: job.events("WorkerLost"))
        assert all_gone(family - own)
        job.signal(signal.SIGTERM)
        assert job.ended() == 0, job.story()
        assert all_gone(family)


def test_all_workers_at_once_go_on_from_the_agents_memory(tmp_path):
    faults = ("--fault", "0:12:all", "--fault", "1:12:all")
    with Launched(
        tmp_path, "puppet.py", "--steps", "20", *faults, flags=(*TWO, "--snapshot-every", "1")
    ) as job:
        assert job.ended() == 0, job.story()
        last = job.events("Decided")[-1]
    sealed = max(event["version"] for event in job.events("FrameSealed") if event["worker"] in (0, 1))
    assert sealed > 0
    first = next(event for event in job.events("Restored") if event["worker"] > 1)
    assert first["version"] == sealed, job.story()
    assert last["finished"] is False
    steps = [event["step"] for event in job.events("StepCommitted")]
    assert steps == list(range(20))
