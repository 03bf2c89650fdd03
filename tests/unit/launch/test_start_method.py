import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest

from hpresil.launch import kernel, start_method
from hpresil.launch.guard import Guard
from hpresil.launch.start_method import ForkServer, Launch, spawn

# A server in its place: says what it is told to, then does what it is told to with the first request.
STAND_IN = """
import os, socket, sys, time
open(os.environ["STARTS"], "a").write("x")
control = socket.socket(fileno=int(os.environ["HPRESIL_FORK_SERVER"]))
said, then = sys.argv[1:]
if said: control.send(said.encode())
if then == "end": sys.exit()
_, fds, _, _ = socket.recv_fds(control, 1 << 17, 64)
if then == "close": os.close(fds[0])
time.sleep(60)
"""
READY = '{"ready": true, "why": ""}'


def ask(tmp_path, said, then, times=1):
    """Ask a stand-in for workers; return the answers, why it does not fork, and how often it was started."""

    async def run():
        guard = Guard()
        server = ForkServer(
            [sys.executable, "-c", STAND_IN, said, then],
            {**os.environ, "STARTS": str(tmp_path / "log.starts")},
            tmp_path / "log",
            guard,
        )
        log_fd = os.open(os.devnull, os.O_WRONLY)
        try:
            launch = Launch(["true"], {}, log_fd, ())
            answers = [await server.fork(launch) for _ in range(times)]
            return answers, server.why_not, len(server._starts)
        finally:
            os.close(log_fd)
            server.close()
            server.close()
            guard.close()

    before = kernel.children()
    found = asyncio.run(run())
    assert kernel.children() <= before, "a server was left behind"
    return found


def test_a_server_that_refuses_is_not_asked_again(tmp_path):
    said = '{"ready": false, "why": "the imports have started 3 threads"}'
    assert ask(tmp_path, said, "wait", times=2) == ([None, None], "the imports have started 3 threads", 1)


NONSENSE = ("what?", "[]", "{}", '{"ready": 1', '{"ready": true}' * 300, "\x01\x7f", "null")


@pytest.mark.parametrize(
    ("said", "then"),
    [("", "end"), (READY, "end"), (READY, "close"), *((said, "wait") for said in NONSENSE)],
)
def test_a_server_that_fails_is_started_again_a_few_times(tmp_path, said, then):
    answers, _, starts = ask(tmp_path, said, then, times=5)
    assert answers == [None] * 5
    assert starts == start_method.MAX_SERVERS


def test_servers_that_fail_once_in_a_while_are_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(start_method, "SERVERS_S", 0.0)
    ask(tmp_path, "what?", "wait", times=start_method.MAX_SERVERS + 3)
    assert len((tmp_path / "log.starts").read_text()) >= start_method.MAX_SERVERS + 3


def test_nobody_waits_for_ever_for_a_silent_server(tmp_path, monkeypatch):
    monkeypatch.setattr(start_method, "FORK_S", 0.2)
    assert ask(tmp_path, READY, "sleep")[0] == [None]
    monkeypatch.setattr(start_method, "READY_S", 0.2)
    answers, why, starts = ask(tmp_path, "", "sleep", times=3)
    assert (answers, starts) == ([None] * 3, 1), "each worker waited for the imports anew"
    assert "took more than" in why


def test_a_server_that_cannot_be_started_says_why(tmp_path):
    async def run():
        guard = Guard()
        server = ForkServer(["/nonexistent/python"], {}, tmp_path / "log", guard)
        try:
            return await server.fork(Launch(["true"], {}, 1, ())), server.why_not
        finally:
            server.close()
            guard.close()

    answer, why = asyncio.run(run())
    assert answer is None
    assert "/nonexistent/python" in why


def test_a_spawned_process_has_its_descriptors_under_their_numbers(tmp_path):
    reading, writing = os.pipe()
    with (tmp_path / "log").open("wb") as log:
        words = [sys.executable, "-c", f"import os; os.write({writing}, b'hello'); print('to the log')"]
        process = spawn(Launch(words, dict(os.environ), log.fileno(), (writing,)))
    os.close(writing)
    with contextlib.closing(os.fdopen(reading, "rb")) as pipe:
        assert pipe.read() == b"hello"
    assert process.wait() == 0
    assert (tmp_path / "log").read_text() == "to the log\n"


def test_a_forked_process_is_waited_for_like_any_other():
    for code, status in (("exit 3", 3), ("kill -9 $$", -signal.SIGKILL)):
        process = subprocess.Popen(["sh", "-c", code])
        assert start_method.Forked(process.pid).wait() == status
        process.wait()  # it was waited for already, which subprocess bears
