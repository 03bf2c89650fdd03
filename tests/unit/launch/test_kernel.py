import os
import signal
import subprocess
import sys
import time

import pytest

from hpresil.launch import kernel

BIG = """
import os, sys
memory = bytearray(256 << 20)
for i in range(0, len(memory), 4096): memory[i] = 1
print("ready", flush=True)
sys.stdin.readline()
os._exit(int(sys.argv[1]))
"""


@pytest.fixture
def big():
    started = []

    def start(status=0):
        command = [sys.executable, "-c", BIG, str(status)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until_known(pid):
    """Return the status as soon as the kernel tells, and whether the process could be waited for by then."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if (status := kernel.ending_status(pid)) is not None:
            return status
    raise AssertionError("the kernel never told")


def test_how_a_big_process_was_killed_is_known_at_once(big):
    process = big()
    os.kill(process.pid, signal.SIGKILL)
    assert until_known(process.pid) == -signal.SIGKILL
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("status", [0, 3])
def test_how_a_big_process_exits_is_known(big, status):
    process = big(status)
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert until_known(process.pid) == status
    assert process.wait() == status


def test_who_lives_has_no_status(big):
    assert kernel.ending_status(big().pid) is None
    assert kernel.ending_status(os.getpid()) is None


def test_who_never_was_has_none_either():
    assert kernel.stat(2**22 + 1) is None
    assert kernel.ending_status(2**22 + 1) is None
    kernel.kill_group(2**22 + 1)


def test_a_stopped_process_is_seen_as_stopped(big):
    process = big()
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert kernel.stat(process.pid).stopped
    os.kill(process.pid, signal.SIGCONT)


def test_children_are_listed_and_can_be_killed_and_reaped():
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
    assert pid in kernel.children()
    end = time.monotonic() + 5
    while pid in kernel.children() and time.monotonic() < end:
        kernel.kill_and_reap({pid})
        time.sleep(0.01)
    assert pid not in kernel.children()
    kernel.kill_and_reap({pid})


def test_a_name_with_brackets_does_not_confuse(tmp_path):
    odd = tmp_path / "a) R 1 (b"
    os.symlink("/bin/sleep", odd)
    process = subprocess.Popen([str(odd), "100"])
    try:
        assert kernel.stat(process.pid).parent == os.getpid()
    finally:
        process.kill()
        process.wait()
