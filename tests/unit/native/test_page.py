"""The liveness page itself: stamps, the generation word, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpresil import native
from hpresil.base.errors import NativeError
from hpresil.base.phases import PHASES


def test_a_new_page_says_nothing() -> None:
    state = native.Page.create().read()
    assert not state.held
    assert not state.ended
    assert (state.phase, state.stamps, state.stamp_ns, state.generation, state.fatal_signal) == (
        0,
        0,
        0,
        0,
        0,
    )
    assert PHASES[state.phase] == "outside"


def test_a_stamp_is_seen_through_another_mapping() -> None:
    page = native.Page.create()
    before = time.monotonic_ns()
    page.stamp(3, 41, -1)
    state = native.Page.attach(page.fd).read()
    assert (state.phase, state.step, state.slot, state.stamps) == (3, 41, -1, 1)
    assert before <= state.stamp_ns <= time.monotonic_ns()


def test_stamps_are_never_torn_and_never_go_back(live) -> None:
    worker = live("stamp_until_killed")
    worker.begin()
    seen = 0
    begun = time.monotonic()
    while time.monotonic() < begun + 0.5 or seen <= 1000:
        assert time.monotonic() < begun + 30.0, f"{seen} stamps in 30 s"
        state = worker.page.read()
        assert state.phase == state.step == state.slot == state.stamps
        assert state.stamps >= seen
        seen = state.stamps


def test_a_writer_stopped_anywhere_does_not_block_the_reader(live) -> None:
    worker = live("stamp_until_killed")
    worker.begin()
    for _ in range(20):
        worker.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOWAIT)
        begun = time.monotonic()
        state = worker.page.read()
        assert state.phase == state.step == state.slot == state.stamps
        assert time.monotonic() - begun < 10.0
        worker.process.send_signal(signal.SIGCONT)


def test_the_generation_rises_and_never_falls() -> None:
    page = native.Page.create()
    page.set_generation(5)
    page.set_generation(4)
    assert page.generation == page.read().generation == 5


def test_a_wait_ends_when_the_generation_rises() -> None:
    page = native.Page.create()
    other = native.Page.attach(page.fd)
    seen: list[int] = []
    waiting = threading.Thread(target=lambda: seen.append(other.wait_generation(1, 20.0)))
    waiting.start()
    page.set_generation(1)  # not above
    page.set_generation(2)
    waiting.join(20)
    assert seen == [2]


def test_a_wait_ends_at_its_deadline_with_what_there_is() -> None:
    page = native.Page.create()
    page.set_generation(3)
    assert page.wait_generation(2, 10.0) == 3
    begun = time.monotonic()
    assert page.wait_generation(3, 0.15) == 3
    assert 0.14 < time.monotonic() - begun < 5.0
    assert page.wait_generation(3, 0.0) == 3


def test_ctrl_c_ends_a_wait() -> None:
    page = native.Page.create()
    # A shell ignores SIGINT for what it starts in the background, and so would this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            page.wait_generation(0, 20.0)
    finally:
        timer.join(10)
        signal.signal(signal.SIGINT, before)


def test_signals_go_to_pythons_main_thread() -> None:
    """A native thread that took a signal would leave the main thread's wait uninterrupted."""
    program = (
        "import signal, time, os\n"
        "from hpresil import native\n"
        "page = native.Page.create(); page.hold(); watch = native.DeathWatch(page)\n"
        "def stop(*_): raise SystemExit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7


def test_interrupts_need_a_held_page() -> None:
    page = native.Page.create()
    for call in (lambda: page.arm_interrupt(0, []), page.disarm_interrupt, page.give_notice):
        with pytest.raises(NativeError, match=r"call hold\(\) first"):
            call()


def test_holding_twice_in_one_process_is_refused() -> None:
    page = native.Page.create()
    page.hold()
    with pytest.raises(NativeError, match="holds the page already"):
        page.hold()
    page.give_notice()


def test_a_page_keeps_its_own_descriptor() -> None:
    page = native.Page.create()
    fd = os.dup(page.fd)
    attached = native.Page.attach(fd)
    os.close(fd)
    attached.stamp(1, 1, 1)
    assert not os.get_inheritable(attached.fd)
    assert page.read().stamps == 1


def test_what_is_no_page_is_refused(tmp_path: Path) -> None:
    small = native.memfd("small", 100)
    page = native.Page.create()
    size = os.fstat(page.fd).st_size
    unsealed = native.memfd("unsealed", size)
    foreign = native.memfd("foreign", size)
    native.seal(foreign, shrink=True, grow=True, seal=True)
    for fd, why in (
        (small, "holds 100 bytes"),
        (unsealed, "not sealed"),
        (foreign, "first bytes are others"),
    ):
        with pytest.raises(NativeError, match=why):
            native.Page.attach(fd)
        os.close(fd)
    with (tmp_path / "plain").open("w+b") as file:
        file.truncate(size)
        with pytest.raises(NativeError, match="is no memory file: Invalid argument"):
            native.Page.attach(file.fileno())


def test_a_state_can_be_made_for_tests_of_those_who_read_it() -> None:
    state = native.PageState(held=True, phase=2, step=7)
    assert (state.held, state.ended, state.phase, state.step, state.slot) == (True, False, 2, 7, -1)
    assert repr(state).startswith("PageState(held=True, ended=False")
