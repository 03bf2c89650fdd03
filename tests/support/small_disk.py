"""Jobs that see a small disk of their own: a tmpfs that is mounted for them alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

# What lay there is on the small disk too; what is on it at the end is copied back, without the filler.
MOUNT = """
disk=$1 size=$2 behind=$3 full=$4; shift 4
mkdir -p "$behind" "$disk" && cp -a "$disk/." "$behind/" || exit 99
mount -t tmpfs -o size=$size tmpfs "$disk" && cp -a "$behind/." "$disk/" || exit 99
if [ "$full" = full ]; then cat /dev/zero > "$disk/filler" 2> /dev/null; fi
"$@"
status=$?
rm -f "$disk/filler"
cp -a "$disk/." "$behind/"
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


def on_a_small_disk(disk: Path, behind: Path, *, size: str = "8m", full: bool = False) -> tuple[str, ...]:
    """Return the command that runs another one with a small disk.

    Args:
        disk: Where it is mounted.
        behind: Where its content is copied to in the end.
        size: As for mount(8).
        full: It is full from the beginning.
    """
    how = "full" if full else ""
    return ("unshare", "--mount", "sh", "-c", MOUNT, "sh", str(disk), size, str(behind), how)
