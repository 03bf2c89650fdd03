"""A writer that is killed at any moment leaves the newest version whole and no torn frame."""

import os
import re
import subprocess
import sys
from pathlib import Path

KILLS = 60


def test_no_frame_is_torn_by_kills_at_random_moments():
    script = Path(__file__).with_name("killed_writer.py")
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, script, str(KILLS), str(seed)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found = re.search(r"(\d+) while a frame was being filled, (\d+) versions", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > KILLS // 10, "the kills came between two fills, so they show nothing"
    assert int(found[2]) > KILLS // 2
