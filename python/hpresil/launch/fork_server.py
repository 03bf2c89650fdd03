"""The fork server: a process that has imported torch once and becomes a worker whenever one is needed.

The problem: a new interpreter spends two seconds of processor time on `import torch` and as much again on the
compiler that the first optimizer imports. A lost worker is away for that long, and a machine that starts
eight workers pays eight times.

The design, that of multiprocessing's start method of the same name: one process per agent imports what every
training script imports and waits. For each worker it forks *twice*; the process in the middle ends, and the
kernel hands the grandchild to the agent, which is a subreaper. So a worker is a child of its agent, dies with
it, is waited for by it, and does not care what becomes of the fork server.

A fork copies one thread. The server therefore offers nothing unless it has one thread only, and no CUDA
context, after its imports; the agent then starts new interpreters instead. A worker that was forked differs
from a new interpreter in one thing: variables that a library reads while it is imported must be set before
`hpresil run`, not by the script (``--start-method spawn`` brings that back).

Talk with the agent, over a pair of sequential-packet sockets:

    server: {"ready": true} or {"ready": false, "why": …}           once
    agent:  {"environment": {…}, "descriptors": [N, …]} with file descriptors: the worker's own socket, its
            log, and one for each number the worker shall find it at
    worker: its process id, on its own socket, once it is the agent's child
    agent:  one byte on that socket: go. The end of the socket instead: exit
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

CONTROL = "HPRESIL_FORK_SERVER"
MAX_REQUEST_BYTES = 1 << 17
MAX_DESCRIPTORS = 64
ADOPTION_S = 10.0
ADOPTION_POLL_S = 0.0002


def serve(control: socket.socket) -> None:
    """Import, report, and fork for every request; returns in the workers only.

    Args:
        control: The server's end of the pair. When the agent closes its own, the server exits.
    """
    why = prepare()
    control.send(json.dumps({"ready": not why, "why": why}).encode())
    if why:
        sys.exit(0)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, MAX_DESCRIPTORS)
        if not request:
            os._exit(0)  # the agent is gone or needs nobody any more; nothing here has an end of its own
        middle = os.fork()
        if middle == 0:
            if _forked_again():
                _become_worker(json.loads(request), descriptors, control)
                return
            os._exit(0)
        os.waitpid(middle, 0)
        for fd in descriptors:
            os.close(fd)


def prepare() -> str:
    """Import what workers import; return why this process must not be forked, or nothing."""
    import torch._dynamo  # by the first optimizer

    import hpresil.data.tokens
    import hpresil.runtime.run  # noqa: F401

    gc.collect()
    gc.freeze()  # what exists now is never collected, so its memory stays shared with the workers
    trial = os.fork()  # libraries that end their threads for a fork do it here
    if trial == 0:
        os._exit(torch.cuda._is_in_bad_fork())
    _, status = os.waitpid(trial, 0)
    if status != 0:
        return "an import has initialised CUDA, which does not survive a fork"
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"the imports have started {threads - 1} threads, which a fork would lose"
    return ""


def _forked_again() -> bool:
    """Fork; return whether this is the grandchild."""
    try:
        return os.fork() == 0
    except OSError:
        os._exit(1)  # the worker's socket closes, so the agent hears of it


def _become_worker(request: dict[str, Any], descriptors: list[int], control: socket.socket) -> None:
    """Make this process what a new interpreter with this environment and these descriptors would be."""
    try:
        environment = request["environment"]
        os.setsid()
        control.close()
        own, log = _place(descriptors, request["descriptors"])
        _await_adoption(int(environment["HPRESIL_AGENT_PID"]))
        _default_signals()
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        os.environ.clear()
        os.environ.update(environment)
        _draw_seeds()
        with socket.socket(fileno=own) as agent:
            agent.send(str(os.getpid()).encode())
            if agent.recv(1) != b"+":
                os._exit(1)
    except BaseException:
        _give_up()


def _default_signals() -> None:
    """Undo what `nohup` ignores: the agent handles these signals, so a new interpreter inherits nothing."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _draw_seeds() -> None:
    """Give the global generators seeds of their own, as a new interpreter would."""
    import torch

    torch.default_generator.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    # Python's own generator sees to itself after a fork.


def _place(descriptors: list[int], numbers: list[int]) -> tuple[int, int]:
    """Move received descriptors to the numbers they shall have; return the worker's socket and its log."""
    above = max([2, *numbers]) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in descriptors]
    for fd in descriptors:
        os.close(fd)
    for fd, number in zip(moved[2:], numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    return moved[0], moved[1]


def _await_adoption(agent: int) -> None:
    """Wait until the process in the middle has ended and the agent is the parent."""
    end = time.monotonic() + ADOPTION_S
    while os.getppid() != agent:
        if time.monotonic() > end:
            raise TimeoutError(f"agent {agent} did not become the parent of process {os.getpid()}")
        time.sleep(ADOPTION_POLL_S)


def _give_up() -> NoReturn:
    traceback.print_exc()
    os._exit(1)
