"""Python imports this at its start if this directory is in PYTHONPATH: its wall clock is then wrong."""

import os
import time

seconds = float(os.environ.get("TEST_WALL_CLOCK_S", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + seconds
time.time_ns = lambda: _time_ns() + int(seconds * 1e9)
