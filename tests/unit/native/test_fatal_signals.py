"""A worker that is being killed by its own signal says so before the kernel can."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

FATAL = [signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT]


@pytest.mark.parametrize("number", FATAL, ids=lambda s: s.name)
def test_the_page_names_the_signal_and_the_status_stays_the_signal(live, number: signal.Signals) -> None:
    worker = live("raise_signal", str(int(number)))
    worker.begin()
    assert worker.notice() == f"signal {int(number)}"
    assert worker.page.read().fatal_signal == number
    worker.exited_at()
    assert worker.process.returncode == -number


def test_a_crash_leaves_no_core_file(live, tmp_path: Path) -> None:
    worker = live("dereference_null")
    worker.begin()
    assert worker.notice() == "signal 11"
    worker.exited_at()
    assert list(tmp_path.iterdir()) == []


def test_the_mark_arrives_before_a_core_dump_is_written(live, tmp_path: Path) -> None:
    worker = live("dump_core", "200")
    limits = Path(f"/proc/{worker.process.pid}/limits").read_text()
    hard = next(line.split()[5] for line in limits.splitlines() if line.startswith("Max core file size"))
    if hard != "unlimited":
        pytest.skip(f"core files are limited to {hard} bytes here")
    worker.begin()
    assert worker.notice() == "signal 11"
    noticed = worker.watch.noticed_ns / 1e9
    exited = worker.exited_at()
    cores = list(tmp_path.iterdir())
    for core in cores:
        core.unlink()
    print(f"mark {(exited - noticed) * 1e3:.1f} ms before the exit status, core files: {len(cores)}")
    assert worker.process.returncode == -signal.SIGSEGV
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" not in pattern and not pattern.startswith("|"):
        assert len(cores) == 1, "the fault did not fire: no core was dumped"
        assert exited - noticed > 0.01, "the dump must be what the mark does not wait for"


def test_a_stack_overflow_is_marked_from_the_alternate_stack(live) -> None:
    worker = live("overflow_the_stack")
    worker.begin()
    assert worker.notice() == "signal 11"
    worker.exited_at()
    assert worker.process.returncode == -signal.SIGSEGV


def test_pythons_traceback_of_a_crash_is_still_printed(live) -> None:
    worker = live("dereference_null_with_faulthandler")
    worker.begin()
    assert worker.notice() == "signal 11"
    worker.exited_at()
    assert worker.process.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in worker.process.stderr.read()


def test_a_crash_of_a_forked_child_is_not_the_workers(live) -> None:
    worker = live("fork_a_child_that_crashes")
    worker.begin()
    assert worker.expect() == str(-signal.SIGSEGV), "the fault did not fire"
    assert worker.notice(within_s=0.3) is None
    state = worker.page.read()
    assert (state.held, state.fatal_signal) == (True, 0)
    assert (state.phase, state.step, state.slot, state.stamps) == (1, 5, 2, 1), "a child's stamp counted"
    assert worker.alive()


def test_a_mark_is_quick(live) -> None:
    worker = live("raise_signal", str(int(signal.SIGSEGV)))
    begun = worker.begin()
    assert worker.notice() == "signal 11"
    assert worker.watch.noticed_ns / 1e9 - begun < 5.0
    assert time.monotonic() - begun < 10.0
