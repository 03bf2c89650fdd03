"""Records of jobs, for tests that compare them with the one of an undisturbed worker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import job

FIELDS = ("step", "loss", "grad_norm", "state", "samples")
MODELS = ("train_transformer.py", "train_conv.py")
Compared = list[tuple[Any, ...]]


def compared(record: Iterable[dict[str, Any]] | Path) -> Compared:
    """Return what must be equal of a record, or of the file that holds it."""
    lines = map(json.loads, record.read_text().splitlines()) if isinstance(record, Path) else record
    return [tuple(line[name] for name in FIELDS) for line in lines]


def undisturbed(directory: Path, script: str, steps: int) -> Compared:
    """Return the record of one worker that nothing happens to."""
    done = job.run(directory, script, "--steps", steps)
    assert done.status == 0, done.output
    return compared(done.record)
