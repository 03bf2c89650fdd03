"""What hpresil needs from a machine, tried on it rather than looked up.

Each check does the real thing once (a memory file is sealed, a child that holds a liveness page is
killed, a kernel runs on a device) and says in one line what it saw. Nothing here raises because of the
machine: a failed check is a result. What could hang, the devices, is tried in a child with a deadline.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from hpresil import native

DEADLINE_S = 60.0
NOTICE_S = 5.0
HOLD = (
    "import sys; from hpresil import native; page = native.Page.attach(int(sys.argv[1])); page.hold(); "
    "print('held', flush=True); sys.stdin.read()"
)
SELF_TEST = "import sys, json; from hpresil import native; print(json.dumps(native.cuda_self_test({index})))"


class Check(NamedTuple):
    """One line of the result."""

    name: str
    passed: bool
    saw: str


def run() -> list[Check]:
    """Try everything; takes about half a second, more with devices."""
    checks = [
        _tried("sealed memory files", _seal),
        _tried("pidfd", _pidfd),
        _tried("death notice (robust futex)", _death_notice),
    ]
    for device in native.cuda_devices():
        checks.append(_tried(f"device {device['index']} self-test", _device(device["index"])))
    return checks


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # every failure is the finding
        return Check(name, False, f"{type(error).__name__}: {error}")


def _seal() -> str:
    fd = native.memfd("hpresil-doctor", 4096)
    try:
        native.seal(fd, shrink=True)
        try:
            os.ftruncate(fd, 0)
        except PermissionError:
            return "cannot shrink"
        raise OSError("a sealed memory file could be shrunk")
    finally:
        os.close(fd)


def _pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return "works"


def _death_notice() -> str:
    page = native.Page.create()
    command = [sys.executable, "-c", HOLD, str(page.fd)]
    pipe = subprocess.PIPE
    with (
        native.DeathWatch(page) as watch,
        subprocess.Popen(command, pass_fds=[page.fd], stdin=pipe, stdout=pipe, text=True) as child,
    ):
        try:
            assert child.stdout is not None
            ready, _, _ = select.select([child.stdout], [], [], DEADLINE_S)
            if not ready or child.stdout.readline().strip() != "held":
                raise RuntimeError("a child could not hold a liveness page")
            killed = time.monotonic_ns()
            child.kill()
            select.select([watch.fd], [], [], NOTICE_S)
            if watch.reason() != "mutex":
                raise TimeoutError(f"no notice within {NOTICE_S:g} s of a kill")
            return f"{(watch.noticed_ns - killed) / 1e6:.2f} ms after a kill"
        finally:
            child.kill()


def _device(index: int) -> Callable[[], str]:
    def check() -> str:
        command = [sys.executable, "-c", SELF_TEST.format(index=index)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "it crashed")
        result = json.loads(done.stdout)
        if not result["passed"]:
            raise RuntimeError(result["problem"])
        return f"passed, {result['copy_back_gbytes_per_s']:.1f} GB/s back to the host"

    return check
