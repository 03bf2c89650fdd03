"""Jobs of puppets (`integration/scripts/puppet.py`), faults in one of them, and the processes of a family."""

import contextlib
import time
from pathlib import Path

from launched import Launched

TWO = ("--nproc-per-node", "2")
LONG = ("--steps", "100000", "--step-s", "0.02")


def children_of(pid: int) -> set[int]:
    """Return the living processes of ``pid``'s family that are not ``pid``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {pid}


def alive(pids: set[int]) -> set[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    return {pid for pid in pids if state(pid) not in ("gone", "Z")}


def all_gone(pids: set[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pids)


def lost(job: Launched, worker: int) -> dict:
    return next(event for event in job.events("WorkerLost") if event["worker"] == worker)


def with_fault(tmp_path, kind, *args, steps=30, flags=()):
    command = ("--steps", str(steps), "--fault", f"1:10:{kind}", *args)
    return Launched(tmp_path, "puppet.py", *command, flags=(*TWO, "--spares", "1", *flags))
