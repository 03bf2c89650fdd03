"""The directory that a run has while it runs; of one that failed the logs are kept.

They go to ``build/bench/failed``, a folder for each failed run, and the failure says where and what the log's
last line with a meaning is.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.file_name import file_name

ROOT = Path(__file__).parents[2]
failed = ROOT / "build" / "bench" / "failed"
"""Where the logs of failed runs go."""
KEPT = ("*.log", "*.jsonl", "fault")
MOST_BYTES = 8 << 20
ERROR = re.compile(r"(?:\b[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)|^ERROR|^error): *\S.*")
NOT_THE_CAUSE = ("ChildFailedError", "SignalException")
"""What a launcher says of workers that have failed; why they did stands above it."""
LONGEST_LINE = 200


@contextmanager
def scratch(name: str, parent: Path | None = None) -> Iterator[Path]:
    """Give a run a path for its directory, which is removed at the end with what is in it.

    If the block fails, the logs are kept, and the exception has a note that says where. What cannot be
    removed is named on stderr and stays: figures are not lost by it.
    """
    above = Path(tempfile.mkdtemp(prefix="hpresil-bench-", dir=parent)).resolve()
    try:
        yield above / "run"
    except Exception as error:
        kept = keep(above / "run", name)
        if kept is not None:
            error.add_note(f"its logs are in {kept}")
        raise
    finally:
        shutil.rmtree(above, ignore_errors=True)
        if above.exists():
            print(f"{name}: {above} cannot be removed completely; remove it", file=sys.stderr)


def keep(directory: Path, name: str) -> Path | None:
    """Copy the logs of a run to where they stay; return the folder, None if there are none."""
    found = [path for pattern in KEPT for path in directory.rglob(pattern) if path.is_file()]
    if not found:
        return None
    when = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    place = failed / file_name(when, name)
    try:
        for path in found:
            to = place / path.relative_to(directory)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(_end_of(path))
    except OSError as error:
        print(f"{name}: its logs cannot be kept in {place}: {error}", file=sys.stderr)
        return None
    return place.relative_to(ROOT) if place.is_relative_to(ROOT) else place


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_BYTES))
        return file.read()


def meaningful(text: str) -> str:
    """Return the last line of a log that says what went wrong, "" without any text in it.

    That is the last one with an error in it that is not a launcher's about its workers, else the last one
    with words.
    """
    lines = [line.strip() for line in text.splitlines() if re.search(r"[A-Za-z]{2}", line)]
    errors = [line for line in lines if ERROR.search(line) and not any(n in line for n in NOT_THE_CAUSE)]
    return (errors or lines or [""])[-1][:LONGEST_LINE]
