"""The processes of one run, wherever they are: what they use, and their end.

A process belongs to a run whose directory is ``BENCH_OUT`` in its environment, or holds the directory that it
works in. So those are found that have a session of their own (torchrun's workers), that were left by who
started them (fork, setsid, fork), and, if they stayed in their folder, that wrote a title over their
environment. Only those of this user are looked at. Processes come and go meanwhile: one that is gone is none.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
VARIABLE = "BENCH_OUT"
TICKS = os.sysconf("SC_CLK_TCK")
LOOK_AGAIN_S = 0.02
MIB = 1 << 20


class LeftBehind(RuntimeError):
    """Processes of a run could not be ended; the message names them."""


def of(directory: Path) -> list[int]:
    """Return the ids of the living processes of the run in ``directory``, without this one."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and belongs(pid, directory)]


def belongs(pid: int, directory: Path) -> bool:
    """Return whether a process lives and is of that run; a zombie does not live."""
    entry = PROC / str(pid)
    try:
        if entry.stat().st_uid != os.getuid():
            return False
        if f"{VARIABLE}={directory}".encode() in (entry / "environ").read_bytes().split(b"\0"):
            return True
        # A directory that was removed is named with " (deleted)" behind it.
        return Path(os.readlink(entry / "cwd").removesuffix(" (deleted)")).is_relative_to(directory)
    except OSError:
        return False


def end(directory: Path, within_s: float) -> None:
    """Kill every process of the run and return when none is left.

    Raises:
        LeftBehind: Some were still there after ``within_s`` seconds.
    """
    deadline = time.monotonic() + within_s
    while left := of(directory):
        if time.monotonic() > deadline:
            those = ", ".join(f"{pid} ({_name(pid)})" for pid in left)
            raise LeftBehind(f"processes that were killed are still there after {within_s:g} s: {those}")
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_AGAIN_S)


def cpu_seconds(directory: Path) -> float:
    """Return the processor seconds that the run's processes have used, with children that have ended."""
    return sum(_ticks(pid) for pid in of(directory)) / TICKS


def memory_mib(directory: Path) -> float:
    """Return the memory of all of the run's processes, pages that several share counted once, in MiB.

    What processes share with others of the machine (say the file of a library) counts by their share of it.
    Reading it holds up a process whose page table is large: not while its steps are timed.
    """
    return sum(_pss_bytes(pid) for pid in of(directory)) / MIB


def _ticks(pid: int) -> int:
    """Return user and system time of a process, its own and that of its ended children."""
    text = _text(pid, "stat")
    fields = text[text.rfind(")") + 2 :].split()  # a name may hold spaces and brackets
    return sum(map(int, fields[11:15]))


def _pss_bytes(pid: int) -> int:
    for line in _text(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _name(pid: int) -> str:
    return _text(pid, "comm").strip() or "gone"


def _text(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""
