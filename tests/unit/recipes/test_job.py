import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from hpresil.recipes.demo.conductor import Act
from hpresil.recipes.demo.job import Job, Tail

POLITE = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
WAIT = "print('started', flush=True)\ntime.sleep(60)"


def job_of(tmp_path: Path, code: str) -> Job:
    """Return a job whose process runs ``code`` instead of the launcher."""
    job = Job([], run_dir=tmp_path / "run", output=tmp_path / "log")
    job.command = [sys.executable, "-c", code]
    return job


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within 20 s"
        time.sleep(0.01)


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_the_tail_gives_each_event_once_and_waits_for_whole_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    with path.open("a") as file:
        file.write('{"event": "A"}\n{"event"')
        file.flush()
        assert [event["event"] for event in tail.read()] == ["A"]
        assert tail.read() == []
        file.write(': "B"}\n')
        file.flush()
    assert [event["event"] for event in tail.read()] == ["B"]


def test_the_launcher_gets_the_run_directory_and_no_setting_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HPRESIL_SEED", "9")
    job = Job(["--spares", "1"], run_dir=tmp_path / "run", output=tmp_path / "log")
    assert job.command[1:] == [
        "-m",
        "hpresil.cli.main",
        "run",
        "--run-dir",
        f"{tmp_path}/run",
        "--spares",
        "1",
    ]
    job = job_of(tmp_path, "import os, json; print(json.dumps(dict(os.environ)))")
    with job:
        wait_until(lambda: job.status() == 0, "the end")
    assert "HPRESIL_SEED" not in json.loads(job.last_lines())


def test_leaving_ends_the_job_politely(tmp_path):
    with job_of(tmp_path, POLITE + WAIT) as job:
        wait_until(lambda: "started" in job.last_lines(), "the start")
    assert job.status() == 0


def test_leaving_ends_the_job_after_an_error_as_well(tmp_path):
    job = job_of(tmp_path, POLITE + WAIT)

    def fail_in_the_middle():
        with job:
            wait_until(lambda: "started" in job.last_lines(), "the start")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    assert job.status() == 0


def test_a_job_that_ignores_the_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("hpresil.recipes.demo.job.DRAIN_TIMEOUT_S", 0.1)
    monkeypatch.setattr("hpresil.recipes.demo.job.KILL_TIMEOUT_S", 0.1)
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
    with job_of(tmp_path, stubborn) as job:
        wait_until(lambda: "started" in job.last_lines(), "the start")
    assert job.status() == -signal.SIGKILL


def test_a_held_process_is_stopped_and_runs_again_at_the_latest_at_the_end(tmp_path):
    with job_of(tmp_path, POLITE + "import os\nprint(os.getpid(), flush=True)\ntime.sleep(60)") as job:
        wait_until(lambda: job.last_lines().strip().isdigit(), "the start")
        pid = int(job.last_lines())
        assert job.act(Act("hold", pid, 4, ""))
        wait_until(lambda: stopped(pid), "the stop")
    assert job.status() == 0


def test_a_signal_to_a_process_that_is_gone_says_so(tmp_path):
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", ""])
    os.waitpid(pid, 0)
    with job_of(tmp_path, POLITE + WAIT) as job:
        wait_until(lambda: "started" in job.last_lines(), "the start")
        assert not job.act(Act("kill", pid, 1, ""))
        assert job.act(Act("drain", 0, -1, ""))
        wait_until(lambda: job.status() == 0, "the drain")
