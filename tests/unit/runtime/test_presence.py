"""A worker is tied to its agent once, in one way: by the launcher's start-up code or by `hpresil.init`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpresil.base.errors import ConfigError
from hpresil.native import Page, memfd
from hpresil.runtime import environment, presence
from hpresil.telemetry import trace
from hpresil.telemetry.trace import TraceKeeper

WORKER = """
import faulthandler, json, os, signal, sys
from hpresil import native
from hpresil.base import spans
from hpresil.runtime import environment, presence

ways = {"start": lambda: presence.hold(os.environ), "init": lambda: environment.read(os.environ).page}
assert presence.held() is None
pages = [ways[way]() for way in sys.argv[1].split("+")]
assert all(page is presence.held() for page in pages)
fds = [int(os.environ[name]) for name in ("HPRESIL_PAGE_FD", "HPRESIL_TRACE_FD", "HPRESIL_ARENA_FDS")]
with spans.span("build"):
    native.crc32c(bytes(1 << 20))
print(json.dumps({"inherited": [os.get_inheritable(fd) for fd in fds], "faults": faulthandler.is_enabled()}))
sys.stdout.flush()
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGSEGV)
"""


def until(true: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


@pytest.mark.parametrize("ways", ["start", "init", "start+init+init"])
def test_the_page_is_held_and_the_trace_written_whichever_way_leads_there(tmp_path: Path, ways: str) -> None:
    page, keeper, arena = Page.create(), TraceKeeper(tmp_path / "trace", "n1"), memfd("arena", 4096)
    with keeper.lent("worker-4", 4) as trace_fd:
        fds = {presence.PAGE: page.fd, presence.TRACE: trace_fd, presence.ARENAS: arena}
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, ways],
            env=os.environ | {"HPRESIL_SOCKET": "unused"} | {name: str(fd) for name, fd in fds.items()},
            pass_fds=list(fds.values()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert worker.stdout is not None
            line = worker.stdout.readline()
            assert line, worker.communicate(timeout=20)[1].decode()
            assert json.loads(line) == {"inherited": [False] * 3, "faults": True}
            first = page.read()
            until(lambda: page.read().interpreter_ns > first.interpreter_ns > 0)
            _, error = worker.communicate(b"\n", timeout=20)
        finally:
            worker.kill()
            worker.communicate()
            os.close(arena)
    assert worker.returncode == -signal.SIGSEGV
    assert b"Fatal Python error: Segmentation fault" in error
    assert page.read().fatal_signal == signal.SIGSEGV
    keeper.close()
    (found,) = trace.read_all(tmp_path)
    assert {span.name for span in found.spans} == {"build", "native checksum"}


def test_a_script_without_a_launcher_holds_no_page() -> None:
    assert environment.read({}).page is None
    assert presence.held() is None


@pytest.mark.parametrize("variable", [presence.PAGE, presence.TRACE, presence.ARENAS])
@pytest.mark.parametrize("text", ["999999", "seven"])
def test_a_descriptor_that_is_not_there_is_an_error_that_names_it(variable: str, text: str) -> None:
    page, own = Page.create(), memfd("own", 4096)
    given = {presence.PAGE: str(page.fd), presence.TRACE: str(own), presence.ARENAS: str(own)}
    with pytest.raises(ConfigError, match=rf"{variable} names descriptor '{text}'.*hpresil run"):
        presence.hold(given | {variable: text})
    os.close(own)
    assert presence.held() is None
    assert page.read().interpreter_ns == 0, "nothing was begun"
