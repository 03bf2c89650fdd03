"""Runs a script, and all that it starts, on so many cores, no more: pinned.py CORES SCRIPT [ARGUMENT...]"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[-int(sys.argv[1]) :])
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
