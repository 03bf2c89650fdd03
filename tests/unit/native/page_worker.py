"""A worker for the liveness tests: `python page_worker.py FD STORY [ARGUMENT]`.

Holds the page behind FD, says "held", waits for a line on its standard input, then lives its story.
"""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import sys
import time

from hpresil import native

FOREVER_S = 60  # the test kills it long before


def exit_normally(page: native.Page, argument: str) -> None:
    sys.exit(0)


def wait(page: native.Page, argument: str) -> None:
    time.sleep(FOREVER_S)


def end_the_thread(page: native.Page, argument: str) -> None:
    page.give_notice()
    time.sleep(FOREVER_S)


def become_another_program(page: native.Page, argument: str) -> None:
    os.execv(sys.executable, [sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"])


def raise_signal(page: native.Page, argument: str) -> None:
    page.install_fatal_handlers()
    os.kill(os.getpid(), int(argument))
    time.sleep(FOREVER_S)


def dereference_null(page: native.Page, argument: str) -> None:
    page.install_fatal_handlers()
    ctypes.string_at(0)


def dereference_null_with_faulthandler(page: native.Page, argument: str) -> None:
    faulthandler.enable()
    dereference_null(page, argument)


def overflow_the_stack(page: native.Page, argument: str) -> None:
    page.install_fatal_handlers()
    sys.setrecursionlimit(2**31 - 1)
    callback = ctypes.CFUNCTYPE(None)

    def deeper() -> None:
        callback(deeper)()

    deeper()


def fork_then_wait(page: native.Page, argument: str) -> None:
    """The child lives on for a while, as a data loader's would."""
    child = os.fork()
    if child == 0:
        time.sleep(FOREVER_S)
        os._exit(0)
    print(child, flush=True)
    time.sleep(FOREVER_S)


def fork_a_child_that_crashes(page: native.Page, argument: str) -> None:
    page.install_fatal_handlers()
    page.stamp(1, 5, 2)
    child = os.fork()
    if child == 0:
        page.stamp(8, 99, 99)
        ctypes.string_at(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    time.sleep(FOREVER_S)


def stamp_until_killed(page: native.Page, argument: str) -> None:
    """Every stamp has the same number in all its fields."""
    end = time.monotonic() + FOREVER_S
    number = 0
    while time.monotonic() < end:
        number += 1
        page.stamp(number, number, number)


def fill(megabytes: int) -> mmap.mmap:
    """Private memory in small pages, every one of them different."""
    memory = mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, len(memory), mmap.PAGESIZE):
        memory[page : page + 8] = page.to_bytes(8, "little")
    return memory


def wait_with_much_memory(page: native.Page, argument: str) -> None:
    memory = fill(int(argument))
    print("filled", flush=True)
    time.sleep(FOREVER_S)
    del memory


def dump_core(page: native.Page, argument: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    memory = fill(int(argument))
    os.environ["HPRESIL_CORE"] = "1"
    dereference_null(page, argument)
    del memory


def main() -> None:
    page = native.Page.attach(int(sys.argv[1]))
    os.close(int(sys.argv[1]))
    native.set_pdeathsig(signal.SIGKILL)
    if sys.argv[2] != "never_hold":
        page.hold()
    print("held", flush=True)
    sys.stdin.readline()
    story = wait if sys.argv[2] == "never_hold" else globals()[sys.argv[2]]
    story(page, sys.argv[3] if len(sys.argv) > 3 else "")


if __name__ == "__main__":
    main()
