"""Named points in the product at which a fault can be injected.

A point costs one attribute test while nothing is armed. ``HPRESIL_FAILPOINTS`` names a JSON file

    {"log": DIR, "faults": [{"id": "a", "point": "slot.begin", "action": "kill",
                             "worker": 1, "rank": 1, "step": 5, "slot": 2, "seconds": 0.2}]}

in which ``worker``, ``rank``, ``step``, ``slot``, ``node`` (its number) and ``from_step`` (this step or a
later one) are optional conditions. A fault fires once per
job, whichever process reaches its point first: the process that creates DIR/<id> owns it, so the
file's existence proves that the fault fired; it holds the process id, the monotonic time and where.

Actions: ``kill`` (SIGKILL to itself), ``lose_node`` (SIGKILL to its agent, and so to all workers of it),
``stop`` (SIGSTOP to itself), ``raise`` (RuntimeError), ``oom`` (MemoryError), ``exit`` (status 0 without
clean-up), ``segv`` (a real invalid write), ``sleep`` (``seconds``). ``times`` (default 1) lets a fault fire
more than once: DIR/<id>.1, …
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

POINTS = (
    "join.begin",  # the worker is about to report itself ready
    "step.begin",  # the step block was entered
    "slot.begin",  # before the first microbatch of a slot is handed out
    "slot.end",  # the slot's gradient is complete and folded
    "reduce.begin",  # all own slots are done, the exchange starts
    "reduce.exchanged",  # the reduced gradient is complete, the vote has not been cast
    "vote.counted",  # the vote was complete, nothing is applied yet
    "apply.begin",  # before the first optimizer runs
    "apply.end",  # the optimizers have run, the rest of the block is pending
    "block.end",  # the step was reported, the version raised
    "regroup.view",  # a newer view was installed, not reported yet
    "regroup.group",  # before the process group of a new generation is built
    "restore.begin",  # a newcomer is about to copy state
    "restore.rest",  # a newcomer can compute, the rest of its state is about to be copied
    "restore.end",  # a newcomer has copied state
    "serve.begin",  # a source is about to copy its state out
    "serve.end",  # a source has sealed the frame
    "standby.begin",  # a spare is about to make its dry step
)

_faults: list[dict[str, Any]] = []
_log = Path()


def arm(path: str | None) -> None:
    """Load the faults of this process from ``path``; None disarms all points."""
    global _faults, _log
    if path is None:
        _faults = []
        return
    spec = json.loads(Path(path).read_text())
    unknown = {fault["point"] for fault in spec["faults"]} - set(POINTS)
    if unknown:
        raise ValueError(f"unknown failpoints {sorted(unknown)}; known: {', '.join(POINTS)}")
    _faults, _log = spec["faults"], Path(spec["log"])


def hit(point: str, **where: int | None) -> None:
    """Fire the faults that are armed for ``point`` and match ``where``."""
    if not _faults:
        return
    for fault in _faults:
        if fault["point"] == point and _matches(fault, where):
            _fire_once(fault, point, where)


def _matches(fault: dict[str, Any], where: dict[str, int | None]) -> bool:
    exact = {k: fault[k] for k in ("worker", "rank", "step", "slot") if k in fault}
    step = where.get("step")
    late_enough = "from_step" not in fault or (step is not None and step >= fault["from_step"])
    here = "node" not in fault or os.environ.get("GROUP_RANK") == str(fault["node"])
    return late_enough and here and all(where.get(k) == v for k, v in exact.items())


def _fire_once(fault: dict[str, Any], point: str, where: dict[str, int | None]) -> None:
    for turn in range(int(fault.get("times", 1))):
        name = fault["id"] if turn == 0 else f"{fault['id']}.{turn}"
        try:
            fd = os.open(_log / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            continue
        what = {"pid": os.getpid(), "t": time.monotonic(), "point": point, "where": where}
        os.write(fd, json.dumps(what).encode())
        os.close(fd)
        _act(fault, f"injected at {point} {where}")
        return


def _act(fault: dict[str, Any], why: str) -> None:
    action = fault["action"]
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "lose_node":
        os.kill(int(os.environ["HPRESIL_AGENT_PID"]), signal.SIGKILL)
        time.sleep(60.0)  # the kernel kills this process because its agent is dead
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "exit":
        os._exit(int(fault.get("status", 0)))
    elif action == "segv":
        ctypes.memset(0, 0, 1)
    elif action == "sleep":
        time.sleep(float(fault["seconds"]))
    elif action == "oom":
        raise MemoryError(why)
    elif action == "raise":
        raise RuntimeError(why)
    else:
        raise ValueError(f"unknown failpoint action {action!r}")


arm(os.environ.get("HPRESIL_FAILPOINTS"))
