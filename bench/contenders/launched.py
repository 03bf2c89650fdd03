"""Runs one job under one contender and returns the marks of its processes.

Each run has a directory of its own and leaves there what it wrote. A run that did not do what it was asked to
is an error: the fault must have fired, and all processes must have ended well. Of no run a process is left
when it is over, however it went.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench import trace
from bench.contenders import SCRIPTS, Contender, Job, Mark, Process, environment, run_processes
from bench.contenders.scratch import meaningful

ROOT = Path(__file__).parents[2]
LONGEST_S = 300.0
END_S = 35.0
"""How long what was started may take to end when it is told to: torchrun gives its workers 30 s."""
KILL_S = 20.0
LOOK_S, WATCH_S = 0.05, 0.02
PORTS = 16
Watch = Callable[[Path], None]
Started = tuple[Process, subprocess.Popen[bytes]]


class Failed(RuntimeError):
    """A run did not do what it was asked to."""


class Cannot(Failed):
    """A contender cannot run a job, or not on this machine, and could not if it tried again."""


def run(contender: Contender, job: Job, directory: Path, watch: Watch | None = None) -> list[Mark]:
    """Run the job to its end; return the marks in the order of their times.

    Args:
        watch: Called with the directory every 0.02 s while the job runs, in this thread.

    Raises:
        Failed: A process ended badly or not at all, left others behind, or the fault did not happen.
        environment.Unavailable: What the contender needs cannot be installed.
    """
    directory.mkdir(parents=True)
    python = environment.python_of(contender.requirements)
    shared = _environment(contender, job, directory)
    running: list[Started] = []
    with _none_left(directory, running), ExitStack() as stack:
        for process in contender.processes(job, directory, python, free_ports()):
            running.append((process, _start(process, shared, directory, stack)))
        _wait(running, directory, watch)
    if job.fault is not None and not (directory / "fault").exists():
        raise Failed(f"the fault at step {job.fault.step} did not happen")
    marks = marks_in(directory)
    trace.of_run(contender.name, job, directory, marks)
    return sorted([*marks, *contender.marks(directory)], key=lambda mark: float(mark["t"]))


def fault_at(directory: Path) -> float:
    """Return when the fault happened."""
    return float(json.loads((directory / "fault").read_text())["t"])


def marks_in(directory: Path) -> list[Mark]:
    """Return the complete lines of all processes in the order of their times."""
    lines = [
        json.loads(line)
        for path in directory.glob("marks.*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    return sorted(lines, key=lambda line: line["t"])


def free_ports() -> list[int]:
    """Return ports in a row that nobody listens at now."""
    for first in range(20000 + os.getpid() % 5000, 60000, PORTS):
        ports = list(range(first, first + PORTS))
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports
    raise Failed("no ports are free in a row")


def _environment(contender: Contender, job: Job, directory: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HPRESIL", "BENCH", "PYTHON"))
    }
    fault = job.fault
    ours = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", SCRIPTS)))}
    return {
        **kept,
        **(ours if not contender.requirements else {}),
        "OMP_NUM_THREADS": "1",
        "BENCH_OUT": str(directory),
        "BENCH_SIZE": job.size,
        "BENCH_STEPS": str(job.steps),
        "BENCH_SAVE_EVERY": str(job.save_every),
        "BENCH_RESIDENT": str(job.resident_gib),
        "BENCH_FAULT": f"{fault.kind}:{fault.rank}:{fault.step}" if fault else "",
    }


def _start(
    process: Process, shared: dict[str, str], directory: Path, stack: ExitStack
) -> subprocess.Popen[bytes]:
    output = stack.enter_context((directory / f"{process.name}.log").open("wb"))
    try:
        return subprocess.Popen(
            list(map(str, process.command)),
            env={**shared, **process.environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{process.name} cannot be started: {error}") from error


@contextmanager
def _none_left(directory: Path, running: list[Started]) -> Iterator[None]:
    """End every process of the run after the block, above all if it fails, and then say why it failed."""
    try:
        yield
    except BaseException:
        with suppress(Failed):
            _end(directory, running)
        raise
    _end(directory, running)


def _end(directory: Path, running: list[Started]) -> None:
    """Tell what was started to end, then kill what is left of the run, wherever it is.

    Raises:
        Failed: Something is still there afterwards.
    """
    end = time.monotonic() + END_S
    alive = [started for _, started in running if started.poll() is None]
    for started in alive:
        started.terminate()
    while any(started.poll() is None for started in alive) and time.monotonic() < end:
        time.sleep(LOOK_S)
    for started in alive:
        started.kill()  # which does nothing to one that has ended
    try:
        run_processes.end(directory, KILL_S)
        for started in alive:
            started.wait(KILL_S)
    except (run_processes.LeftBehind, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error


def _wait(running: list[Started], directory: Path, watch: Watch | None) -> None:
    """Wait until all but helpers have ended; the first that ends badly ends the wait."""
    end = time.monotonic() + LONGEST_S
    while True:
        for process, started in running:
            _judge(process, started, directory)
        left = [process for process, started in running if not process.helper and started.returncode is None]
        if not left:
            return
        if time.monotonic() > end:
            names = ", ".join(process.name for process in left)
            last = meaningful(_log(directory, left[0]))
            raise Failed(f"{names} had not ended after {LONGEST_S:g} s; the last line: {last}")
        if watch is not None:
            watch(directory)
        time.sleep(LOOK_S if watch is None else WATCH_S)


def _judge(process: Process, started: subprocess.Popen[bytes], directory: Path) -> None:
    """Fail if the process has ended badly. One that the fault itself ends has ended well."""
    status = started.poll()
    if status is None or (status == 0 and not process.helper) or _was_the_victim(directory, started.pid):
        return
    when = ", while it was needed," if process.helper else ""
    raise Failed(f"{process.name} ended{when} with status {status}: {meaningful(_log(directory, process))}")


def _was_the_victim(directory: Path, pid: int) -> bool:
    """Return whether the fault has hit that process, which it does after it was written down."""
    with suppress(FileNotFoundError, ValueError):
        return pid in json.loads((directory / "fault").read_text())["pids"]
    return False


def _log(directory: Path, process: Process) -> str:
    return (directory / f"{process.name}.log").read_text(errors="replace")
