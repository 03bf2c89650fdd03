"""Jobs that see a small disk of their own: a tmpfs that is mounted for them alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

# With a place behind it, what lay there is on the small disk too, and what is on it at the end, without the
# filler, is copied there.
MOUNT = """
disk=$1 size=$2 behind=$3 full=$4; shift 4
mkdir -p "$disk"
if [ -n "$behind" ]; then mkdir -p "$behind" && cp -a "$disk/." "$behind/" || exit 99; fi
mount -t tmpfs -o size=$size tmpfs "$disk" || exit 99
if [ -n "$behind" ]; then cp -a "$behind/." "$disk/" || exit 99; fi
if [ "$full" = full ]; then cat /dev/zero > "$disk/filler" 2> /dev/null; fi
"$@"
status=$?
rm -f "$disk/filler"
if [ -n "$behind" ]; then cp -a "$disk/." "$behind/"; fi
exit $status
"""


def mounts_or_skip() -> None:
    """Skip the test, with the reason, where a process may not have mounts of its own."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if tried.returncode:
        pytest.skip(f"a mount needs root: {tried.stderr.strip()}")


def on_a_small_disk(
    disk: Path, behind: Path | None, *, size: str = "8m", full: bool = False
) -> tuple[str, ...]:
    """Return the command that runs another one with a small disk.

    Args:
        disk: Where it is mounted.
        behind: Where its content is copied to in the end; None: it begins empty, and nothing is kept.
        size: As for mount(8).
        full: It is full from the beginning.
    """
    how = "full" if full else ""
    return ("unshare", "--mount", "sh", "-c", MOUNT, "sh", str(disk), size, str(behind or ""), how)
