"""Lets a script wait until the job's spares stand by, so that a test's fault finds them ready."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

DEADLINE_S = 120.0


def wait_for_spares(step: int, committed: bool) -> None:
    """Return at once except after step 1; then wait for as many spares as HPRESIL tests ask for."""
    wanted = int(os.environ.get("TEST_SPARES", "0"))
    if step != 1 or not committed or not wanted:
        return
    events = Path(os.environ["HPRESIL_RUN_DIR"]) / "events.jsonl"
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        lines = [json.loads(line) for line in events.read_text().splitlines() if line.endswith("}")]
        ready = {e["worker"] for e in lines if e["event"] == "WorkerReady" and not e["pristine"]}
        lost = {e["worker"] for e in lines if e["event"] == "WorkerLost"}
        if len(ready | lost) >= wanted:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{wanted} spares were not ready within {DEADLINE_S} s")
