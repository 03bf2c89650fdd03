"""A run of a contender ends as it should or says why, soon, and leaves no process and no directory behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench.contenders import Fault, Job, launched, run_processes
from bench.contenders.scratch import meaningful, scratch

from scripted_contender import TRAIN, Scripted, failing

JOB = Job("small", 2, 3)
SLEEPS = "import time; time.sleep(100)"
SOON_S = 20.0
FAULTLESS = TRAIN + "[step(number) for number in range(int(STEPS))]"
LEAVES = """
import os, time
OUT = os.environ["BENCH_OUT"]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(OUT + "/left.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(OUT + "/left.new", OUT + "/left")
        time.sleep(100)
    os._exit(0)
os.wait()
while not os.path.exists(OUT + "/left"):
    time.sleep(0.01)
"""
"""A process in a session of its own whose parent is gone."""
WITHOUT_ENVIRONMENT = """
import os, subprocess
left = subprocess.Popen(["sleep", "100"], env={"PATH": os.environ["PATH"]}, start_new_session=True)
with open(os.environ["BENCH_OUT"] + "/left", "w") as file:
    file.write(str(left.pid))
os._exit(0)
"""


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def started_in(directory, script):
    directory.mkdir()
    environment = os.environ | {"BENCH_OUT": str(directory)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=directory)


def wait_for(path):
    end = time.monotonic() + SOON_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


# ------------------------------------------------------------------------ how a run ends


def test_a_run_that_ends_well_gives_its_marks_in_their_order(tmp_path):
    marks = launched.run(Scripted("good"), JOB, tmp_path / "run")
    assert [(mark["step"], mark["rank"]) for mark in marks] == [
        (n, rank) for n in range(3) for rank in (0, 1)
    ]
    assert run_processes.of(tmp_path / "run") == []


def test_a_bad_exit_ends_the_run_at_once_although_another_process_goes_on(tmp_path):
    late = "import sys; print('RuntimeError: no luck', file=sys.stderr); sys.exit(3)"
    begun = time.monotonic()
    with pytest.raises(launched.Failed, match="process-1 ended with status 3: RuntimeError: no luck"):
        launched.run(Scripted("bad", scripts=(SLEEPS, late)), JOB, tmp_path / "run")
    assert time.monotonic() - begun < SOON_S
    assert run_processes.of(tmp_path / "run") == []


def test_a_run_that_does_not_end_is_ended_and_named_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "LONGEST_S", 1.0)
    says = f"print('waiting for rank 7', flush=True); {SLEEPS}"
    with pytest.raises(launched.Failed, match=r"process-0, process-1 had not ended after 1 s; .* for rank 7"):
        launched.run(Scripted("slow", scripts=(says, SLEEPS)), JOB, tmp_path / "run")
    assert run_processes.of(tmp_path / "run") == []


def test_a_process_that_ignores_being_told_to_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "LONGEST_S", 1.0)
    monkeypatch.setattr(launched, "END_S", 0.5)
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
    with pytest.raises(launched.Failed, match="had not ended after 1 s"):
        launched.run(Scripted("stubborn", scripts=(stubborn,)), JOB, tmp_path / "run")
    assert run_processes.of(tmp_path / "run") == []


def test_a_helper_is_ended_at_the_end_and_may_not_end_before(tmp_path):
    launched.run(Scripted("helped", helpers=(SLEEPS,)), JOB, tmp_path / "a")
    assert run_processes.of(tmp_path / "a") == []
    with pytest.raises(launched.Failed, match="process-1 ended, while it was needed, with status 0"):
        launched.run(Scripted("left alone", scripts=(SLEEPS,), helpers=("pass",)), JOB, tmp_path / "b")


def test_a_process_that_cannot_be_started_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(launched.Failed, match=r"process-0 cannot be started: .*no-python"):
        launched.run(Scripted("absent"), JOB, tmp_path / "run")


def test_a_fault_that_does_not_happen_is_a_failure(tmp_path):
    job = Job("small", 2, 3, Fault("kill", 1, 2))
    with pytest.raises(launched.Failed, match="the fault at step 2 did not happen"):
        launched.run(Scripted("lucky", scripts=(FAULTLESS,)), job, tmp_path / "run")


def test_the_victim_of_the_fault_has_ended_well(tmp_path):
    dies = TRAIN + (
        'open(f"{OUT}/fault", "w").write(json.dumps({"pids": [os.getpid()], "t": time.monotonic()}))\n'
        "os.kill(os.getpid(), 9)"
    )
    job = Job("small", 2, 3, Fault("kill", 1, 2))
    assert launched.run(Scripted("hit", scripts=(FAULTLESS, dies)), job, tmp_path / "run")


def test_a_watch_sees_the_run_while_it_goes_on(tmp_path):
    seen = []
    launched.run(
        Scripted("watched"),
        Job("small", 2, 40),
        tmp_path / "run",
        lambda place: seen.append(launched.marks_in(place)),
    )
    assert any(0 < len(marks) < 80 for marks in seen)


# ------------------------------------------------------------------------ what would be left behind


@pytest.mark.parametrize(
    "script", [LEAVES, WITHOUT_ENVIRONMENT], ids=["setsid and two forks", "by its folder"]
)
def test_a_process_that_has_left_its_session_is_ended_too(tmp_path, script):
    launched.run(Scripted("leaves", scripts=(script,)), JOB, tmp_path / "run")
    left = int((tmp_path / "run" / "left").read_text())
    assert not lives(left)


def test_it_is_ended_as_well_if_the_run_fails(tmp_path):
    with pytest.raises(launched.Failed, match="out of luck"):
        launched.run(
            Scripted("both", scripts=(LEAVES + "\nraise RuntimeError('out of luck')",)), JOB, tmp_path / "run"
        )
    assert not lives(int((tmp_path / "run" / "left").read_text()))


def test_processes_of_another_run_live_on(tmp_path):
    other = started_in(tmp_path / "run-2", SLEEPS)
    try:
        launched.run(Scripted("good"), JOB, tmp_path / "run")
        assert run_processes.of(tmp_path / "run-2") == [other.pid]
    finally:
        other.kill()
        other.wait(SOON_S)


def test_what_cannot_be_ended_is_named(tmp_path, monkeypatch):
    stays = started_in(tmp_path / "run", SLEEPS)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(run_processes.os, "kill", lambda pid, number: None)
            with pytest.raises(run_processes.LeftBehind, match=rf"still there after 0.1 s: {stays.pid} \("):
                run_processes.end(tmp_path / "run", 0.1)
        run_processes.end(tmp_path / "run", SOON_S)
    finally:
        stays.kill()
        assert stays.wait(SOON_S) == -9


# ------------------------------------------------------------------------ what a run uses


def test_memory_that_processes_share_counts_once(tmp_path):
    shares = (
        "import os, time; held = b'x' * (64 << 20); os.fork(); open(str(os.getpid()), 'w'); time.sleep(100)"
    )
    both = started_in(tmp_path / "run", shares)
    try:
        wait_for(tmp_path / "run" / str(both.pid))
        end = time.monotonic() + SOON_S
        while len(list((tmp_path / "run").iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(run_processes.of(tmp_path / "run")) == 2
        assert 64 < run_processes.memory_mib(tmp_path / "run") < 110
    finally:
        run_processes.end(tmp_path / "run", SOON_S)
        both.wait(SOON_S)


def test_processor_time_holds_that_of_children_that_have_ended(tmp_path):
    burns = (
        "import subprocess, sys, time\n"
        "burn = 'import time\\nwhile time.process_time() < 0.5: pass'\n"
        "subprocess.run([sys.executable, '-c', burn]); open('done', 'w'); time.sleep(100)"
    )
    parent = started_in(tmp_path / "run", burns)
    try:
        wait_for(tmp_path / "run" / "done")
        assert run_processes.cpu_seconds(tmp_path / "run") >= 0.4
    finally:
        run_processes.end(tmp_path / "run", SOON_S)
        parent.wait(SOON_S)


# ------------------------------------------------------------------------ its directory and logs


def test_the_logs_of_a_run_that_fails_are_kept_and_its_directory_is_not(place, tmp_path):
    with pytest.raises(launched.Failed) as failure, scratch("torchrun + DCP") as directory:
        launched.run(failing("bad"), JOB, directory)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name.endswith("-torchrun-+-DCP")
    assert (kept / "process-0.log").read_text() == "RuntimeError: out of luck\n"
    assert failure.value.__notes__ == [f"its logs are in {kept}"]


def test_a_run_that_ends_well_keeps_nothing(place, tmp_path):
    with scratch("good") as directory:
        launched.run(Scripted("good"), JOB, directory)
    assert not (tmp_path / "kept").exists()


def test_a_directory_that_cannot_be_removed_loses_no_figure(place, monkeypatch, capsys):
    with monkeypatch.context() as patched, scratch("good") as directory:
        figures = launched.run(Scripted("good"), JOB, directory)
        patched.setattr("bench.contenders.scratch.shutil.rmtree", lambda path, ignore_errors: None)
        above = directory.parent
        assert figures
    assert above.exists()
    assert f"{above} cannot be removed completely" in capsys.readouterr().err
    subprocess.run(["rm", "-r", str(above)], check=True, timeout=SOON_S)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("step 1\nstep 2\n=====\n", "step 2"),
        ("Traceback:\n  x\nValueError: no\nbye\n", "ValueError: no"),
        ("[rank1]: RuntimeError: gloo\nlast words\n", "[rank1]: RuntimeError: gloo"),
        ("OSError: full\ntorch.x.ChildFailedError: \n====\ntrain.py FAILED\n", "OSError: full"),
        (
            "WARNING: Retrying\nERROR: No matching distribution\n[notice] new pip\n",
            "ERROR: No matching distribution",
        ),
    ],
)
def test_the_line_of_a_log_that_says_what_went_wrong(text, line):
    assert meaningful(text) == line
