import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpresil.launch.guard import GUARDIAN, Guard

END_S = 10.0


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def until(ready):
    end = time.monotonic() + END_S
    while not ready() and time.monotonic() < end:
        time.sleep(0.01)
    return ready()


@pytest.fixture
def guardian():
    process = subprocess.Popen([sys.executable, "-I", "-S", str(GUARDIAN)], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    if not process.stdin.closed:
        process.stdin.close()


@pytest.fixture
def sleepers():
    started = []

    def start(**how):
        process = subprocess.Popen(["sleep", "100"], start_new_session=True, **how)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_when_its_pipe_ends_it_kills_and_removes(guardian, sleepers, tmp_path):
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    (sockets / "agent").write_text("")
    group, spared = sleepers(), sleepers()
    daemon = sleepers(env={"HPRESIL_SOCKET": f"{sockets}/agent", "PATH": "/usr/bin:/bin"})
    told = (
        f"+ {group.pid}\n+ {spared.pid}\n- {spared.pid}\nd {sockets}\nd {tmp_path}/kept\nu {tmp_path}/kept\n"
    )
    guardian.stdin.write(told.encode())
    guardian.stdin.close()
    assert until(lambda: gone(group.pid) and gone(daemon.pid))
    assert guardian.wait(END_S) == 0
    assert not sockets.exists()
    assert not gone(spared.pid)


def test_sent_home_it_leaves_everything(guardian, sleepers, tmp_path):
    group = sleepers()
    guardian.stdin.write(f"+ {group.pid}\nd {tmp_path}\nx\n".encode())
    guardian.stdin.close()
    assert guardian.wait(END_S) == 0
    assert not gone(group.pid)
    assert tmp_path.exists()


def test_it_ignores_the_signals_of_a_terminal(guardian):
    guardian.stdin.write(b"d /nonexistent\n")
    guardian.stdin.flush()
    status = Path(f"/proc/{guardian.pid}/status")

    def ignored():
        line = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
        return int(line.split()[1], 16)

    assert until(lambda: ignored() & (1 << 1) and ignored() & (1 << 14))  # SIGINT, SIGTERM
    for number in (1, 2, 3, 15):
        os.kill(guardian.pid, number)
    guardian.stdin.write(b"x\n")
    guardian.stdin.close()
    assert guardian.wait(END_S) == 0


def test_it_starts_quickly():
    guardian = subprocess.Popen([sys.executable, "-I", "-S", str(GUARDIAN)], stdin=subprocess.DEVNULL)
    _, guardian.returncode, used = os.wait4(guardian.pid, 0)
    assert guardian.returncode == 0
    assert used.ru_utime + used.ru_stime < 0.5  # of processor time, which a busy machine stretches little


def test_the_guard_survives_its_guardian(sleepers, tmp_path):
    guard = Guard()
    first = guard.pid
    group = sleepers()
    guard.add_group(group.pid)
    guard.add_directory(tmp_path)
    os.kill(first, 9)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    guard.add_group(group.pid)  # nobody listens, and nothing breaks
    guard.drop_directory(tmp_path)
    guard.close()
    assert guard.pid == 0
    assert not gone(group.pid)
