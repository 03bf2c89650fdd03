"""A worker is asked where it stands: its file, how long that takes, and that it never goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpresil.launch import stacks
from hpresil.launch.stacks import Question, Stacks
from hpresil.native import Page

WORKER = """
import ctypes, os, sys, threading, time
from hpresil.native import Page
from hpresil.runtime import standing
page = Page.attach(int(sys.argv[1]))
page.hold()
if sys.argv[2] != "mute": standing.begin(page)
counting = threading.Event()
def count():
    while True:
        open(sys.argv[3], "a").write("x"); counting.set(); time.sleep(0.005)
threading.Thread(target=count, daemon=True).start()
counting.wait(20)
def sits_here():
    print("ready", flush=True)
    if sys.argv[2] == "native": ctypes.PyDLL(None).sleep(60)
    time.sleep(60)
sits_here()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[str], tuple[Page, subprocess.Popen[str]]]]:
    started: list[subprocess.Popen[str]] = []

    def start(kind: str) -> tuple[Page, subprocess.Popen[str]]:
        page = Page.create()
        words = [sys.executable, "-c", WORKER, str(page.fd), kind, str(tmp_path / "count")]
        process = subprocess.Popen(words, pass_fds=[page.fd], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return page, process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def ask(page: Page, pid: int, path: Path) -> tuple[bool, float, str]:
    """Ask; return whether it was asked, how long it took until it may be killed, and the file."""

    async def asking() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        keeper, may_be_killed = Stacks(loop), asyncio.Event()
        begin = time.monotonic()
        asked = keeper.ask(Question(pid, page, path, "the head"), may_be_killed.set)
        if asked:
            await asyncio.wait_for(may_be_killed.wait(), 30)
        seconds = time.monotonic() - begin
        await loop.run_in_executor(None, keeper.close)
        return asked, seconds

    asked, seconds = asyncio.run(asking())
    return asked, seconds, path.read_text()


@pytest.mark.parametrize("kind", ["python", "native"])
def test_python_and_native_stacks_are_written_whoever_has_the_gil(kind, worker, tmp_path):
    page, process = worker(kind)
    asked, seconds, text = ask(page, process.pid, tmp_path / "worker-3.stacks")
    assert asked
    assert seconds < stacks.SURELY_S + 10.0, "the deadline, and what a busy machine needs"
    assert text.startswith("the head\n\nPython\n")
    assert "in sits_here" in text
    assert "in count" in text
    assert "_PyEval_EvalFrameDefault" in text
    assert ("sleep" in text.split("Native (")[1]) is True


def test_who_was_asked_never_goes_on(worker, tmp_path):
    page, process = worker("python")
    ask(page, process.pid, tmp_path / "worker-3.stacks")
    before = (tmp_path / "count").stat().st_size
    time.sleep(0.2)
    assert (tmp_path / "count").stat().st_size == before > 0
    assert process.poll() is None, "it waits to be killed"


def test_who_is_stopped_is_not_asked(worker, tmp_path):
    page, process = worker("python")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    asked, _, text = ask(page, process.pid, tmp_path / "worker-3.stacks")
    assert not asked
    assert text == f"the head\n\n{stacks.STOPPED}\n"


def test_who_cannot_answer_is_not_asked(worker, tmp_path):
    page, process = worker("mute")
    asked, _, text = ask(page, process.pid, tmp_path / "worker-3.stacks")
    assert not asked
    assert text == f"the head\n\n{stacks.UNABLE}\n"
    assert process.poll() is None, "nothing was sent to it"


def test_a_directory_that_cannot_be_written_is_no_error(worker, tmp_path, caplog):
    page, process = worker("python")
    with pytest.raises(FileNotFoundError):
        ask(page, process.pid, tmp_path / "missing" / "worker-3.stacks")
    assert "cannot be written" in caplog.text
