"""What figures depend on beside the code: the machine, what else it does, and how much memory it has left."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

GIB = 1 << 30
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
NO_LIMIT_BYTES = 1 << 60
"""From here on a limit is none: cgroups of the first version write a number where there is none."""
TRY_S = 20.0


def machine() -> dict[str, Any]:
    """Return what the figures depend on and does not change while they are taken."""
    names = [
        line.split(":")[1] for line in (PROC / "cpuinfo").read_text().splitlines() if "model name" in line
    ]
    limit = memory_limit()
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1),
        "memory_limit_gib": None if limit is None else round(limit / GIB, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": version_of("torch"),
        "priorities_can_be_raised": priorities_can_be_raised(),
        "load_average": load(),
    }


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def version_of(package: str) -> str | None:
    """Return the version of a package of this environment, None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def priorities_can_be_raised() -> bool:
    """Return whether a process may make itself more urgent than it was (a nice value below its own)."""
    raised = [sys.executable, "-I", "-S", "-c", "import os; os.nice(-1)"]
    try:
        return subprocess.run(raised, capture_output=True, check=False, timeout=TRY_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# ------------------------------------------------------------------------------------ memory


def free_gib() -> float:
    """Return how much memory can be had now: by the kernel, and within the limits of all cgroups."""
    lines = (line.split() for line in (PROC / "meminfo").read_text().splitlines())
    free = next(int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:")
    rooms = [limit - _used(folder) for folder, limit in _limits()]
    return min([free, *rooms]) / GIB


def memory_limit() -> int | None:
    """Return the smallest limit of the cgroups that this process is in, in bytes; None without one."""
    return min((limit for _, limit in _limits()), default=None)


def _limits() -> list[tuple[Path, int]]:
    """Return (folder, bytes) of each cgroup with a limit, from this process's own to the root."""
    found = []
    for folder in _cgroups():
        for name in ("memory.max", "memory.limit_in_bytes"):  # of the second version, of the first
            limit = _read(folder / name).strip()
            if limit.isdigit() and int(limit) < NO_LIMIT_BYTES:
                found.append((folder, int(limit)))
    return found


def _cgroups() -> list[Path]:
    found = []
    for line in _read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        own = root / path.lstrip("/")
        found += [own, *(above for above in own.parents if above.is_relative_to(root))]
    return found


def _used(folder: Path) -> int:
    """Return the bytes of a cgroup that are no files the kernel may drop."""
    used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
    stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    first = "total_" if "total_inactive_file" in stat else ""
    files = sum(int(stat.get(f"{first}{name}_file", 0)) for name in ("active", "inactive"))
    return int(used or 0) - files


def _read(path: Path) -> str:
    """Return the text of a file of the kernel, "" if it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
