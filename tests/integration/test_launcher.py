"""`hpresil run` with workers that speak the protocol by hand: starting, noticing, killing, cleaning up."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpresil.membership.messages import Hello, encode
from hpresil.telemetry.recovery import recoveries
from job import COMMAND
from launched import Launched

TWO = ("--nproc-per-node", "2")
LONG = ("--steps", "100000", "--step-s", "0.02")


def children_of(pid: int) -> set[int]:
    """Return the living processes of ``pid``'s family that are not ``pid``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def alive(pids: set[int]) -> set[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    return {pid for pid in pids if state(pid) not in ("gone", "Z")}


def all_gone(pids: set[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pids)


# --------------------------------------------------------------------------- running a command


SCRIPT = """
import json, os, sys
import beside
own_session = os.getsid(0) == os.getpid()
print(json.dumps([sys.argv, sys.path[0], __name__, __file__, own_session, sorted(os.environ)]))
"""


def test_a_script_runs_as_python_would_run_it(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("")
    (tmp_path / "scripts" / "plain.py").write_text(SCRIPT)
    with Launched(tmp_path, "scripts/plain.py", "--x", "1", "-m", flags=TWO) as job:
        assert job.ended() == 0, job.story()
        argv, first, name, file, own_session, env = json.loads(job.stdout.removeprefix("[w0] "))
    assert argv == ["scripts/plain.py", "--x", "1", "-m"]
    assert (first, name, file) == (str(tmp_path / "scripts"), "__main__", "scripts/plain.py")
    assert own_session
    assert {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"} <= set(env)
    assert "script ended without using hpresil" in job.stderr


def test_a_module_and_a_program_run_too(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "entry.py").write_text("import sys; print(__name__, __package__, sys.argv[1:])")
    with Launched(tmp_path, "package.entry", "a", flags=("-m",)) as job:
        assert job.ended() == 0, job.story()
        assert job.stdout == "[w0] __main__ package ['a']\n"
    with Launched(tmp_path, "sh", "-c", "echo $RANK of $WORLD_SIZE", flags=("--no-python",)) as job:
        assert job.ended() == 0, job.story()
        assert job.stdout == "[w0] 0 of 1\n"


def test_a_script_that_fails_on_import_shows_its_traceback_once(tmp_path):
    (tmp_path / "bad.py").write_text("print('before')\nimport a_module_that_is_missing\n")
    with Launched(tmp_path, "bad.py", flags=TWO) as job:
        assert job.ended() == 1
        shown = job.stdout + job.stderr
    assert shown.count("Traceback (most recent call last)") == 1, shown
    assert shown.count("import a_module_that_is_missing") == 1
    assert "launch/worker_process.py" not in shown
    assert str(job.run_dir / "logs" / "worker-") in shown
    assert "before the first step" in shown


@pytest.mark.parametrize(("line", "status"), [("raise SystemExit(7)", 7), ("import os; os._exit(9)", 9)])
def test_the_exit_status_of_a_script_is_the_jobs(tmp_path, line, status):
    (tmp_path / "leaves.py").write_text(line)
    with Launched(tmp_path, "leaves.py") as job:
        assert job.ended() == status, job.story()


# --------------------------------------------------------------------------- a healthy job


def test_a_job_leaves_its_record_metrics_and_events(tmp_path):
    record = tmp_path / "record.jsonl"
    flags = (*TWO, "--spares", "1", "--record", str(record))
    with Launched(tmp_path, "puppet.py", "--steps", "6", flags=flags) as job:
        assert job.ended() == 0, job.story()
        names = [event["event"] for event in job.events()]
    assert [json.loads(line)["step"] for line in record.read_text().splitlines()] == list(range(6))
    metrics = [json.loads(line) for line in (job.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == list(range(6))
    assert names[0] == "JobStarted"
    assert names.count("WorkerStarted") == names.count("WorkerLeft") == 3
    assert names.count("StepCommitted") == names.count("StepCompleted") == 6
    assert names.index("ViewInstalled") < names.index("Decided") < names.index("Restored")
    assert not (job.run_dir / "agent.json").exists()
    assert "[w0] puppet 0" in job.stdout
    assert "[w1]" not in job.stdout


def test_what_a_script_does_after_its_last_step_counts(tmp_path):
    with Launched(tmp_path, "puppet.py", "--steps", "2", "--after", "3", flags=TWO) as job:
        assert job.ended() == 3, job.story()
    assert "exit status 3" in job.stderr


def test_status_tells_who_is_in(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, flags=(*TWO, "--spares", "1")) as job:
        job.until_step(3)
        ask = [*COMMAND, "status", "--run-dir", str(job.run_dir)]
        found = json.loads(subprocess.check_output([*ask, "--json"], env=job.env))
        text = subprocess.check_output(ask, env=job.env, text=True)
        job.signal(signal.SIGTERM)
        assert job.ended() == 0, job.story()
        after = subprocess.run(ask, env=job.env, capture_output=True, text=True, check=False)
    assert set(found) == {"generation", "step", "members", "last_recovery", "refused"}
    roles = [(member["role"], member["rank"], member["slots"]) for member in found["members"]]
    assert roles == [
        ("agent", None, []),
        ("coordinator", None, []),
        ("worker", 0, [0, 1]),
        ("worker", 1, [2, 3]),
        ("spare", None, []),
    ]
    assert found["members"][2]["pid"] == job.pid(0)
    assert "generation 1" in text
    assert after.returncode == 1
    assert after.stderr == f"hpresil status: no job runs in {job.run_dir} now\n"


def test_a_second_job_in_the_same_directory_is_refused(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG) as job:
        job.until_step(1)
        again = subprocess.run(job.command, env=job.env, capture_output=True, text=True, check=False)
        assert again.returncode == 2
        assert "a job already runs in" in again.stderr
        assert again.stderr.count("\n") == 1


def test_a_terminal_that_goes_away_changes_nothing(tmp_path):
    job = Launched(tmp_path, "puppet.py", "--steps", "5", flags=TWO)
    process = subprocess.Popen(
        job.command, env=job.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    process.stdout.close()
    process.stderr.close()
    assert process.wait(40) == 0
    job.assert_nothing_left()
    assert len(job.events("StepCompleted")) == 5


# --------------------------------------------------------------------------- losing workers


def lost(job: Launched, worker: int) -> dict:
    return next(event for event in job.events("WorkerLost") if event["worker"] == worker)


def with_fault(tmp_path, kind, *args, steps=30, flags=()):
    command = ("--steps", str(steps), "--fault", f"1:10:{kind}", *args)
    return Launched(tmp_path, "puppet.py", *command, flags=(*TWO, "--spares", "1", *flags))


def test_a_killed_workers_rank_goes_to_the_spare(tmp_path):
    with with_fault(tmp_path, "kill") as job:
        assert job.ended() == 0, job.story()
    fault = float((job.run_dir / "fired-1").read_text())
    found = lost(job, 1)
    assert (found["reason"], found["status"], found["step"], found["slot"]) == ("killed", -9, 10, 1)
    assert found["armed"]
    assert "worker 1 (rank 1) lost (step 10, slot 1): killed by SIGKILL" in job.stderr
    assert [view["members"] for view in job.events("ViewInstalled")][:2] == [[0, 1], [0, 2]]
    (recovery, *_) = recoveries(job.events(), {1: fault})
    assert recovery.kind == "killed"
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


# --------------------------------------------------------------------------- errors that stop the job


def test_results_that_differ_stop_the_job(tmp_path):
    with with_fault(tmp_path, "diverge") as job:
        assert job.ended() == 1
    assert "Divergence: step 10: loss is" in " ".join(job.stderr.replace("│", " ").split())


def test_a_frame_that_no_machine_can_hold_is_a_clear_error(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, "--frame-bytes", str(1 << 50), flags=TWO) as job:
        assert job.ended() == 1
    assert "no memory for snapshots: 2 frames of 1073741824 MiB each" in job.stderr


# --------------------------------------------------------------------------- signals, the agent's own death


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


# --------------------------------------------------------------------------- who may speak


def test_a_stranger_cannot_speak_for_a_worker(tmp_path):
    with Launched(tmp_path, "puppet.py", *LONG, flags=TWO) as job:
        job.until_step(2)
        sockets = Path(job.facts()["sockets"])
        assert sockets.stat().st_mode & 0o777 == 0o700
        for first in (
            encode(Hello(worker=1, pid=job.pid(1))),
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x02hi",
            b"",
        ):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(str(sockets / "agent"))
                stranger.settimeout(20)
                stranger.send(first)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(100) == b"", "the agent answered a stranger"
        before = len(job.events("StepCompleted"))
        job.until(lambda: len(job.events("StepCompleted")) > before)
        assert not job.events("WorkerLost")
        assert "says it is worker 1" in (job.run_dir / "agent.log").read_text()


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys; from hpresil.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "hpresil VERB" in out
    for heavy in ("'torch'", "'numpy'", "'asyncio'", "'rich'"):
        assert heavy not in out
