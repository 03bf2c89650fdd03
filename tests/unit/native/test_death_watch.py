"""The death notice, and every exception to it: who fires it, who does not, and how early it comes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from hpresil import native
from hpresil.base.errors import NativeError


def test_a_killed_worker_is_noticed(live) -> None:
    worker = live("wait")
    assert worker.page.read().held
    assert worker.watch.reason() is None
    worker.kill()
    assert worker.notice() == "mutex"
    state = worker.page.read()
    assert (state.held, state.ended, state.fatal_signal) == (False, True, 0)
    worker.exited_at()
    assert worker.process.returncode == -signal.SIGKILL


def test_a_large_worker_is_noticed_before_its_exit_status(live) -> None:
    worker = live("wait_with_much_memory", "400")
    worker.begin()
    worker.expect("filled")
    killed = worker.kill()
    exited = worker.exited_at()
    assert worker.notice() == "mutex"
    noticed = worker.watch.noticed_ns / 1e9
    print(
        f"notice after {(noticed - killed) * 1e3:.2f} ms, exit status after {(exited - killed) * 1e3:.2f} ms"
    )
    assert killed <= noticed < exited
    assert exited - killed > 0.005, "the fault did not fire: freeing the memory took no time"


def test_a_normal_exit_is_noticed(live) -> None:
    worker = live("exit_normally")
    worker.begin()
    assert worker.notice() == "mutex"
    worker.exited_at()
    assert worker.process.returncode == 0


def test_the_end_of_the_holding_thread_fires_although_the_process_lives(live) -> None:
    worker = live("end_the_thread")
    worker.begin()
    assert worker.notice() == "mutex"
    assert worker.alive()


def test_exec_fires_although_the_process_lives(live) -> None:
    worker = live("become_another_program")
    worker.begin()
    assert worker.notice() == "mutex"
    assert worker.alive()


def test_before_the_page_is_held_only_the_pidfd_tells(live) -> None:
    worker = live("never_hold")
    state = worker.page.read()
    assert (state.held, state.ended) == (False, False)
    worker.kill()
    worker.exited_at()
    assert worker.notice(within_s=0.3) is None


def test_a_page_serves_one_process_life(live) -> None:
    worker = live("wait")
    with pytest.raises(NativeError, match="held before; each process life needs its own"):
        worker.page.hold()
    assert worker.page.read().held, "the refused one must not disturb the holder"
    worker.kill()
    assert worker.notice() == "mutex"
    with pytest.raises(NativeError, match="held before"):
        worker.page.hold()


def test_a_forked_child_that_lives_on_does_not_hide_the_death(live) -> None:
    worker = live("fork_then_wait")
    worker.begin()
    child = int(worker.expect())
    worker.kill()
    assert worker.notice() == "mutex"
    os.kill(child, 0)  # it is there still; the fixture kills the session


def test_a_forked_child_that_dies_is_no_death(live) -> None:
    worker = live("fork_then_wait")
    worker.begin()
    os.kill(int(worker.expect()), signal.SIGKILL)
    assert worker.notice(within_s=0.3) is None
    assert worker.page.read().held


def test_a_stopped_worker_is_no_death(live) -> None:
    worker = live("wait")
    worker.process.send_signal(signal.SIGSTOP)
    assert worker.notice(within_s=0.3) is None
    worker.kill()
    assert worker.notice() == "mutex"


def test_every_watch_of_a_page_fires(live) -> None:
    worker = live("wait")
    others = [native.DeathWatch(native.Page.attach(worker.page.fd)) for _ in range(3)]
    worker.kill()
    for watch in others:
        assert select.select([watch.fd], [], [], 10)[0]
        assert watch.reason() == "mutex"
        watch.close()
    late = native.DeathWatch(worker.page)
    assert select.select([late.fd], [], [], 10)[0]
    late.close()


def test_a_watch_closes_quickly_while_the_page_is_held(live) -> None:
    worker = live("wait")
    begun = time.monotonic()
    worker.watch.close()
    assert time.monotonic() - begun < 10.0
    assert worker.watch.fd == -1
    assert worker.alive()
    assert worker.page.read().held, "the watch never owns the futex"


def test_a_watch_closes_on_a_page_that_nobody_holds() -> None:
    page = native.Page.create()
    with native.DeathWatch(page) as watch:
        assert watch.reason() is None
        begun = time.monotonic()
    assert time.monotonic() - begun < 10.0


def test_a_forked_child_can_end_although_it_has_no_watching_thread() -> None:
    program = (
        "import os, sys\n"
        "from hpresil import native\n"
        "watch = native.DeathWatch(native.Page.create())\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(3)\n"
        "_, status = os.waitpid(child, 0)\n"
        "sys.exit(os.waitstatus_to_exitcode(status) + 4)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 7
