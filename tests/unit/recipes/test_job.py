import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpresil.recipes.demo.conductor import Act
from hpresil.recipes.demo.job import Job, Tail

POLITE = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
TELL = POLITE + "import os\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
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


def fail_within(job: Job, error: type[BaseException]) -> None:
    with job:
        wait_until(lambda: "started" in job.last_lines(), "the start")
        raise error


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

    with pytest.raises(ZeroDivisionError):
        fail_within(job, ZeroDivisionError)
    assert job.status() == 0


def test_a_job_that_ignores_the_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("hpresil.recipes.demo.job.DRAIN_TIMEOUT_S", 0.1)
    monkeypatch.setattr("hpresil.recipes.demo.job.KILL_TIMEOUT_S", 0.1)
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
    with job_of(tmp_path, stubborn) as job:
        wait_until(lambda: "started" in job.last_lines(), "the start")
    assert job.status() == -signal.SIGKILL


def test_a_held_process_is_stopped_and_runs_again_at_the_latest_at_the_end(tmp_path):
    with job_of(tmp_path, TELL) as job:
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


def test_the_launcher_is_told_when_the_demo_is_killed(tmp_path):
    code = f"""
import time
from pathlib import Path
from hpresil.recipes.demo.job import Job
job = Job([], run_dir=Path({str(tmp_path)!r}), output=Path({str(tmp_path / "log")!r}))
job.command = [{sys.executable!r}, "-c", {TELL!r}]
with job:
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and log.read_text().strip().isdigit(), "the start")
        parent.kill()
    launcher = int(log.read_text())
    wait_until(lambda: not Path(f"/proc/{launcher}").exists(), "the end of the launcher")


def test_after_an_error_the_drain_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("hpresil.recipes.demo.job.HURRY_S", 0.1)
    second_ends = "lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL)"
    job = job_of(tmp_path, f"import signal, time\nsignal.signal(signal.SIGTERM, {second_ends})\n{WAIT}")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fail_within(job, KeyboardInterrupt)
    assert job.status() == -signal.SIGTERM
    assert time.monotonic() - began < 15
