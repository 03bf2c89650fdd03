"""`hpresil run` with workers that speak the protocol by hand: starting, healthy jobs, who may speak."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpresil.membership.messages import Hello, encode
from job import COMMAND
from launched import Launched
from puppets import LONG, TWO

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
