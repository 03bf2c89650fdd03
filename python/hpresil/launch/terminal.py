"""What a person sees while a job runs: the agent's lines, one worker's output, and boxes for failures.

A terminal can stop reading (Ctrl-S, a full pipe) or go away; the agent must not wait for it. So one
thread does all the writing: it takes the agent's lines from a queue and reads the workers' log files, to
which the workers write themselves. If the terminal is gone, the thread goes quiet; nothing else changes.

The agent's lines go to standard error, the workers' lines to standard output with their worker's name in
front. Lines of different workers and of the agent may change places by a fraction of a second; the log
files are exact. A traceback that a worker marks as the one that ended it is left out here, because the
box shows it."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from hpresil.launch.marks import BEGIN_MARK, END_MARK

POLL_S = 0.05
CLOSE_S = 3.0
BOX_DELAY_S = 0.3  # drawing takes the interpreter for a while, and a box often means that a recovery runs
CHUNK_BYTES = 1 << 20
MAX_QUEUE = 10_000
MAX_WIDTH = 500  # of a box in a file, where breaking a line hides it from a search


@dataclass(frozen=True)
class Box:
    """One failure, for a person. ``lines``: (label, text) pairs; ``trace`` and ``tail`` may be empty."""

    title: str
    lines: tuple[tuple[str, str], ...]
    trace: str = ""
    tail: str = ""


class _Followed:
    """One worker's log, read from where it was."""

    def __init__(self, worker: int, path: Path, from_start: bool) -> None:
        self.prefix = f"[w{worker}] ".encode()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if not from_start:
            os.lseek(self._fd, 0, os.SEEK_END)
        self._partial = b""
        self._hiding = False

    def read(self, *, rest: bool = False) -> bytes:
        """Return the new complete lines, prefixed; with ``rest`` an incomplete last one too."""
        data = self._partial + os.read(self._fd, CHUNK_BYTES)
        lines = data.split(b"\n")
        self._partial = lines.pop()
        if rest and self._partial:
            lines.append(self._partial)
            self._partial = b""
        return b"".join(self.prefix + line + b"\n" for line in lines if self._shown(line))

    def _shown(self, line: bytes) -> bool:
        if line.startswith(BEGIN_MARK.encode()):
            self._hiding = True
        elif self._hiding and line.startswith(END_MARK.encode()):
            self._hiding = False
            return False
        return not self._hiding

    def close(self) -> None:
        os.close(self._fd)


class Terminal:
    """The thread that writes to the terminal.

    Args:
        quiet: Leave out the agent's lines, which another node's agent shows too, except those that concern
            this node only; boxes are shown.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._queue: queue.Queue[str | Box | tuple[int, Path, bool] | int | None] = queue.Queue(MAX_QUEUE)
        self._followed: dict[int, _Followed] = {}
        self._deaf: set[int] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpresil-terminal", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        """Write one line of the agent's."""
        if not self._quiet:
            self._put(text)

    def loud(self) -> None:
        """Write the agent's lines from now on, because no other node's agent does."""
        self._quiet = False

    def warn(self, text: str) -> None:
        """Write one line about this node, which no other agent shows."""
        self._put(text)

    def show(self, box: Box) -> None:
        """Show a failure."""
        self._put(box)

    def follow(self, worker: int, log: Path, *, from_start: bool) -> None:
        """Show what ``worker`` writes from now on (or from its first line)."""
        self._put((worker, log, from_start))

    def unfollow(self, worker: int) -> None:
        """Show what ``worker`` has written so far, and nothing more."""
        self._put(worker)

    def close(self) -> None:
        """Write what is left; give up on a terminal that does not take it."""
        self._closing.set()
        self._put(None)
        self._thread.join(CLOSE_S)

    def _put(self, item: str | Box | tuple[int, Path, bool] | int | None) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            pass  # nobody reads; the events and the logs have it all

    def _run(self) -> None:
        import rich.panel  # noqa: F401  (long, so at the start, while the workers start)

        while True:
            try:
                item = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                self._drain_logs()
                continue
            if item is None:
                self._drain_logs(rest=True)
                return
            self._handle(item)

    def _handle(self, item: str | Box | tuple[int, Path, bool] | int) -> None:
        if isinstance(item, str):
            self._write(2, f"hpresil: {item}\n".encode(errors="replace"))
        elif isinstance(item, Box):
            self._closing.wait(BOX_DELAY_S)
            self._drain_logs()
            self._write(2, drawn(item).encode(errors="replace"))
        elif isinstance(item, tuple):
            worker, log, from_start = item
            if worker not in self._followed:
                with contextlib.suppress(OSError):  # somebody has removed the log
                    self._followed[worker] = _Followed(worker, log, from_start)
        else:
            followed = self._followed.pop(item, None)
            if followed is not None:
                self._write(1, followed.read(rest=True))
                followed.close()

    def _drain_logs(self, *, rest: bool = False) -> None:
        for followed in self._followed.values():
            while data := followed.read(rest=rest):
                self._write(1, data)

    def _write(self, fd: int, data: bytes) -> None:
        try:
            while data and fd not in self._deaf:
                data = data[os.write(fd, data) :]
        except OSError:
            self._deaf.add(fd)


def drawn(box: Box) -> str:
    """Return the box as text, in colour if standard error is a terminal."""
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.text import Text

    wide = max((len(label) for label, _ in box.lines), default=0) + 2
    parts = [Text.assemble((label.ljust(wide), "bold"), text) for label, text in box.lines]
    for heading, body in (("traceback", box.trace), ("last lines of its log", box.tail)):
        if body:
            parts += [Text(""), Text(heading, style="bold"), Text(body.rstrip())]
    on_terminal = sys.stderr.isatty()
    longest = max(len(line) for part in parts for line in part.plain.split("\n")) + 4
    width = None if on_terminal else min(max(80, longest), MAX_WIDTH)
    console = Console(stderr=True, width=width, highlight=False)
    with console.capture() as captured:
        console.print(Panel(Group(*parts), title=box.title, border_style="red", title_align="left"))
    return captured.get()


def last_lines(log: Path, count: int = 10) -> str:
    """Return the end of a worker's log without the marked traceback."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (64 << 10)))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    shown, hiding = [], False
    for line in lines:
        if line.startswith(BEGIN_MARK):
            hiding = True
        elif line.startswith(END_MARK):
            hiding = False
        elif not hiding:
            shown.append(line)
    return "\n".join(shown[-count:])
