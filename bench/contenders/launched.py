"""Runs one job under one contender and returns the marks of its processes.

Each run has a directory of its own and leaves there what it wrote. A run that did not do what it was asked to
is an error: the fault must have fired, and all processes must have ended well.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from bench import trace
from bench.contenders import SCRIPTS, Contender, Job, Mark, Process, environment

ROOT = Path(__file__).parents[2]
LONGEST_S = 300.0
END_S = 20.0
PORTS = 16


class Failed(RuntimeError):
    """A run did not do what it was asked to."""


def run(contender: Contender, job: Job, directory: Path) -> list[Mark]:
    """Run the job to its end; return the marks in the order of their times.

    Raises:
        Failed: A process ended badly or not at all, or the fault did not happen.
        environment.Unavailable: What the contender needs cannot be installed.
    """
    directory.mkdir(parents=True)
    python = environment.python_of(contender.requirements)
    processes = contender.processes(job, directory, python, free_ports())
    with ExitStack() as stack:
        running = [
            (process, _start(process, _environment(contender, job, directory), directory, stack))
            for process in processes
        ]
        _wait([(process, started) for process, started in running if not process.helper], directory)
    if job.fault is not None and not (directory / "fault").exists():
        raise Failed(f"{contender.name}: the fault at step {job.fault.step} did not happen ({directory})")
    marks = marks_in(directory)
    trace.of_run(contender.name, job, directory, marks)
    return sorted([*marks, *contender.marks(directory)], key=lambda mark: float(mark["t"]))


def place(scratch: str) -> Path:
    """Return where a run under ``scratch`` leaves what it writes."""
    return Path(scratch) / "run"


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
    started = subprocess.Popen(
        list(map(str, process.command)),
        env={**shared, **process.environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    stack.callback(_end, started)
    return started


def _end(started: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its session."""
    if started.poll() is None:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait(END_S)


def _wait(running: list[tuple[Process, subprocess.Popen[bytes]]], directory: Path) -> None:
    """Wait until all have ended. A process that the fault itself ends has ended well."""
    end = time.monotonic() + LONGEST_S
    for process, started in running:
        try:
            status = started.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failed(
                f"{process.name} had not ended after {LONGEST_S:g} s:\n{_tail(directory, process)}"
            ) from None
        if status != 0 and not _was_the_victim(directory, started.pid):
            raise Failed(f"{process.name} ended with status {status}:\n{_tail(directory, process)}")


def _was_the_victim(directory: Path, pid: int) -> bool:
    fault = directory / "fault"
    return fault.exists() and pid in json.loads(fault.read_text())["pids"]


def _tail(directory: Path, process: Process) -> str:
    return "\n".join((directory / f"{process.name}.log").read_text(errors="replace").splitlines()[-25:])
