"""Where a hung worker stands: its stacks, Python's and native, in a file beside its log.

The worker has been given up when it is asked, and everybody is told at once: the others regroup meanwhile.
Every thread that answers a signal writes its stack into memory that it shares with this process and never
goes on (`csrc/liveness/stack_signals.h`), so from the question on the worker is as harmless as a killed one.
It is killed as soon as it has answered, after `ANSWER_S` whatever it does, and at once if it is stopped.
Names of functions are looked up later, in a thread with the lowest priority.

The file is always there in the end: it holds the stacks, or the sentence why there are none. Its size is
bounded by the memory: 128 KiB of Python's stacks, 128 threads with 127 frames each.

Thread rule: `ask` and `close` in the agent's main thread; each worker that is asked has a thread here then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.errors import NativeError
from hpresil.launch import kernel
from hpresil.native import Page, StackReport

log = logging.getLogger(__name__)
ANSWER_S = 0.3
SURELY_S = 0.35
"""After this time it is killed even if the kernel does not let go of what is asked of it."""
CLOSE_S = 2.0
STOPPED = "No stacks: the process is stopped (a stop signal holds it), so it cannot say where it stands."
UNABLE = "No stacks: the process does not answer questions: its start, or a program of its own, came first."
SILENT = "No stacks: none of its {threads} threads answered within {seconds:g} s."


@dataclass(frozen=True)
class Question:
    """What is asked, of whom. ``head`` begins the file ``path``."""

    pid: int
    page: Page
    path: Path
    head: str


class Stacks:
    """Asks hung workers where they stand and writes down what they say.

    Args:
        loop: The agent's event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: list[threading.Thread] = []

    def ask(self, question: Question, done: Callable[[], None]) -> bool:
        """Ask; ``done`` is called in the event loop, once or twice, when the worker may be killed.

        Returns False if it cannot answer: kill it now.
        """
        why = _unable(question)
        work = (lambda: _write(question, lambda: why)) if why else (lambda: self._take(question, done))
        if not why:
            question.page.ask_for_stacks(question.pid)
            self._loop.call_later(SURELY_S, done)
        thread = threading.Thread(target=work, name="hpresil-stacks", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()
        return not why

    def close(self) -> None:
        """Wait for what is being written, for two seconds at most."""
        end = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _take(self, question: Question, done: Callable[[], None]) -> None:
        report = question.page.wait_for_stacks(question.pid, ANSWER_S)
        with suppress(RuntimeError):  # the loop is closed: everything was killed
            self._loop.call_soon_threadsafe(done)
        _write(question, lambda: _told(report))


def _unable(question: Question) -> str:
    status = kernel.stat(question.pid)
    if status is not None and status.stopped:
        return STOPPED
    return "" if question.page.read().interpreter_ns else UNABLE


def _told(report: StackReport) -> str:
    if not report.answers:
        silent = SILENT.format(threads=report.threads, seconds=ANSWER_S)
        return f"{silent}\n\n{report.describe()}"
    python = report.python or "nothing came in time"
    if report.python and not report.told:
        python += "\n(the rest did not come in time)"
    count = f"{report.answers} of {report.threads} threads answered"
    return f"Python\n\n{python.rstrip()}\n\nNative ({count})\n\n{report.describe()}"


def _write(question: Question, tell: Callable[[], str]) -> None:
    """Write the file, whole or not at all."""
    temporary = question.path.with_name(question.path.name + ".tmp")
    try:
        temporary.write_text(f"{question.head}\n\n{tell().rstrip()}\n", errors="backslashreplace")
        os.replace(temporary, question.path)
    except (OSError, NativeError) as error:
        log.warning("the stacks of process %d cannot be written: %s", question.pid, error)
