"""Cleans up after the agent when the agent itself is killed.

The problem: SIGKILL to the agent leaves nobody who knows what the workers have started (forked data loaders
do not die with them) and the socket directory.

The design: a tiny process in a session of its own, started before any worker. The agent tells it through a
pipe, one line each, what to clean up:

    + GROUP     a process group that lives          - GROUP     it is gone
    d PATH      a directory to remove               u PATH      it is removed
    x           the agent has cleaned up itself

When the pipe ends without an ``x``, the guardian removes the directories and kills whoever belongs to the
job: the process groups, the sessions of the same number, and every process whose environment names one of
the directories (that of the agent's socket, which all workers inherit). So a daemon is found too, unless it
has cleaned its environment. The guardian imports almost nothing and is up within milliseconds. It ignores
the signals of a terminal; whoever kills the agent and the guardian at the same instant is not defended
against.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

PATIENCE_S = 2.0


def main() -> int:
    """Listen on standard input until it ends, then clean up."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    os.chdir("/")
    groups: dict[int, None] = {}
    directories: dict[str, None] = {}
    for line in sys.stdin.buffer:
        word, _, rest = line.decode("utf-8", "surrogateescape").rstrip("\n").partition(" ")
        if word == "+":
            groups[int(rest)] = None
        elif word == "-":
            groups.pop(int(rest), None)
        elif word == "d":
            directories[rest] = None
        elif word == "u":
            directories.pop(rest, None)
        elif word == "x":
            return 0
    clean_up(set(groups), list(directories))
    return 0


def clean_up(groups: set[int], directories: list[str]) -> None:
    """Remove the directories and kill until nobody is left or the patience is over."""
    for group in groups:
        _send_kill(os.killpg, group)
    for directory in directories:
        remove(directory)
    marks = [f"={directory}/".encode("utf-8", "surrogateescape") for directory in directories]
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = [pid for pid in _processes() if _belongs(pid, groups, marks)]
        for pid in found:
            _send_kill(os.kill, pid)
        if not found:
            return
        time.sleep(0.02)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _belongs(pid: int, groups: set[int], marks: list[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
        if fields[0] in (b"Z", b"X"):
            return False
        if int(fields[2]) in groups or int(fields[3]) in groups:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return False  # gone, or another user's
    return any(mark in environment for mark in marks)


def _send_kill(how: Callable[[int, int], None], whom: int) -> None:
    try:
        how(whom, signal.SIGKILL)
    except OSError:
        pass


def remove(directory: str) -> None:
    """Remove a directory of sockets; it has no directories in it."""
    try:
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
