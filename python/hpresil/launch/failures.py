"""Which failures a person is shown, once each, and what the box says.

A worker that an outside signal killed is news of one line: the job goes on, nobody has to do anything. A
worker that died for a reason of its own (an exception, a crash, an exit inside the loop) and a job that
stops are shown in a box: who, where, why, the traceback once, the last lines of the log. The same failure
in several workers is one box. A worker that hung has a box too, with the file that holds its stacks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from hpresil.launch.picture import Picture
from hpresil.launch.terminal import Box, Terminal, last_lines
from hpresil.launch.workers import Gone, WorkerProcess
from hpresil.membership import messages as m

NO_ROOM_BYTES = 8192
CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})


def signal_name(number: int) -> str:
    """Return the name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending_words(gone: Gone) -> str:
    """Return how a worker ended, in words."""
    if gone.reason == "hung":
        return "hung and was killed"
    if gone.status is None:
        return "ended"
    return f"killed by {signal_name(-gone.status)}" if gone.status < 0 else f"exit status {gone.status}"


def place_words(step: int, slot: int) -> str:
    """Return a place in the training, in words."""
    if step < 0:
        return "before the first step"
    return f"step {step}, slot {slot}" if slot >= 0 else f"step {step}"


class Failures:
    """Shows failures on the terminal.

    Args:
        terminal: Where.
        picture: Who has which rank.
        log_of: The log of a worker.
    """

    def __init__(self, terminal: Terminal, picture: Picture) -> None:
        self._terminal, self._picture = terminal, picture
        self._shown: set[tuple[str, str]] = set()
        self._shown_workers: set[int] = set()
        self._logs: dict[int, Path] = {}

    def started(self, worker: WorkerProcess) -> None:
        """Remember where the worker writes."""
        self._logs[worker.id] = worker.log

    def lost(self, worker: WorkerProcess, gone: Gone, why: str) -> None:
        """Tell of a worker that is gone before the job's end."""
        place = place_words(gone.step, gone.slot)
        name = self._picture.name(worker.id)
        if gone.reason == "hung":
            self._hung(worker, place, why)
            return
        own = self._is_own(worker, gone)
        error = _read_error(worker.error_file) if own else {}
        if not own:
            said = why or ending_words(gone)
            self._terminal.say(f"{name} lost ({place}): {said}")
            return
        words = ending_words(gone)
        key = (error.get("type", words), error.get("message", ""))
        self._shown_workers.add(worker.id)
        if key in self._shown:
            self._terminal.say(f"{name} failed too ({place}), in the same way")
            return
        self._shown.add(key)
        lines = [("who", f"{name}, process {worker.pid}"), ("where", place)]
        if not error:  # else the last line of the traceback says it
            lines.append(("what", words))
            if _is_full(worker.log):
                lines.append(("why", "unknown: the disk of its log is full, what it said there is lost"))
        lines.append(("log", str(worker.log)))
        tail = last_lines(worker.log)
        title = f"worker {worker.id} failed"
        self._terminal.show(Box(title, tuple(lines), error.get("traceback", ""), tail))

    def _hung(self, worker: WorkerProcess, place: str, why: str) -> None:
        lines = [
            ("who", f"{self._picture.name(worker.id)}, process {worker.pid}"),
            ("where", place),
            ("what", f"{why}; it is killed"),
            ("stacks", str(worker.stacks_file)),
            ("log", str(worker.log)),
        ]
        self._terminal.show(Box(f"worker {worker.id} hung", tuple(lines)))

    def _is_own(self, worker: WorkerProcess, gone: Gone) -> bool:
        if gone.reason == "exited":  # a script that ends before its loop just ends
            return gone.status != 0 or worker.id in self._picture.ready
        return gone.status is not None and -gone.status in CRASHES

    def slot_failed(self, worker: int, message: m.SlotFailed) -> None:
        """Tell of an exception that may be absorbed."""
        place = place_words(message.step, message.slot)
        after = "; it runs once more" if message.retry else ""
        self._terminal.say(f"{self._picture.name(worker)} raised ({place}): {_short(message.error)}{after}")

    def job_ended(self, ended: m.JobEnded, run_dir: Path) -> None:
        """Tell how the job ended."""
        if ended.status == 0:
            self._terminal.say(f"{ended.reason}{_saved(ended, run_dir)}")
            return
        if ended.worker in self._shown_workers:  # the box is there already
            self._terminal.say(
                f"the job failed, exit status {ended.status}: {ended.reason}{_saved(ended, run_dir)}"
            )
            return
        lines = [("why", ended.reason)]
        if ended.worker >= 0:
            lines.append(("who", self._picture.name(ended.worker)))
        if ended.step >= 0:
            lines.append(("where", place_words(ended.step, ended.slot)))
        if ended.saved:
            lines += [("saved", ended.saved), ("go on", f"hpresil run --resume --run-dir {run_dir} …")]
        log = self._logs.get(ended.worker)
        if log is not None:
            lines.append(("log", str(log)))
        tail = "" if log is None else last_lines(log)
        title = f"the job failed, exit status {ended.status}"
        self._terminal.show(Box(title, tuple(lines), ended.traceback, tail))


def _is_full(log: Path) -> bool:
    try:
        found = os.statvfs(log)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < NO_ROOM_BYTES


def _saved(ended: m.JobEnded, run_dir: Path) -> str:
    if not ended.saved:
        return ""
    return f"; saved in {ended.saved}; go on with hpresil run --resume --run-dir {run_dir} …"


def _read_error(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(text: str, limit: int = 500) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + " …"
