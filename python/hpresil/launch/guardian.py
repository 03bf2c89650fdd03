"""Cleans up after the agent when the agent itself is killed.

The problem: SIGKILL to the agent leaves nobody who knows the workers' process groups (their forked data
loaders do not die with them) and the socket directory.

The design: a tiny process in a session of its own, started before any worker. The agent tells it through a
pipe, one line each, what to clean up:

    + GROUP     a process group that lives          - GROUP     it is gone
    d PATH      a directory to remove               u PATH      it is removed
    x           the agent has cleaned up itself

When the pipe ends without an ``x``, the guardian kills the groups, removes the directories and exits. It
imports almost nothing, so it is up within milliseconds and costs 8 MB at most. It ignores the signals of a
terminal: whoever kills the agent and the guardian at the same instant is not defended against.
"""

import os
import signal
import sys
import time

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
    kill(list(groups))
    for directory in directories:
        remove(directory)
    return 0


def kill(groups: list[int]) -> None:
    """Kill the process groups, again and again until nobody is left or the patience is over."""
    end = time.monotonic() + PATIENCE_S
    while groups and time.monotonic() < end:
        groups = [group for group in groups if _alive(group)]
        time.sleep(0.01)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return False
    return True


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
