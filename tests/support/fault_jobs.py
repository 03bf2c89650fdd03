"""Jobs with one fault or several, and what is read of them: records, events, losses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import job

SCRIPT = "train_small.py"
STEPS = 10
Start = Callable[..., subprocess.Popen[str]]
FIELDS = ("step", "loss", "grad_norm", "state", "samples")


def lines(record: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in FIELDS) for line in record]


def fault(point: str, action: str, **where: Any) -> dict[str, Any]:
    return {"id": "fault", "point": point, "action": action, **where}


def wait_for_record(
    directory: Path, ready: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 100.0
) -> list[dict[str, Any]]:
    """Wait until the record of a running job satisfies ``ready`` and return it."""
    end, path = time.monotonic() + timeout_s, directory / "record.jsonl"
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        record = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if ready(record):
            return record
        time.sleep(0.02)
    raise AssertionError(f"the record did not get there within {timeout_s} s\n{job.logs(directory)}")


def wait_for_event(
    directory: Path, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 100.0
) -> None:
    """Wait until an event of a running job is as ``wanted``."""
    end, path = time.monotonic() + timeout_s, directory / "events.jsonl"
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        if any(wanted(json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(f"the event did not come within {timeout_s} s\n{job.logs(directory)}")


def sizes_of(record: list[dict[str, Any]]) -> list[int]:
    """Return the world sizes a record went through, repeats left out."""
    sizes = [line["world_size"] for line in record]
    return [size for i, size in enumerate(sizes) if i == 0 or size != sizes[i - 1]]


def lost(done: job.Job) -> list[tuple[int, str]]:
    return [(e["worker"], e["reason"]) for e in done.happened("WorkerLost")]
