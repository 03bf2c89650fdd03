"""A bench writes rows that can be compared: every field, and how many repeats were counted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hpresil

ROOT = Path(__file__).parents[3]
FIELDS = [
    "suite", "case", "contender", "metric", "unit", "median", "min", "max", "runs", "floor", "goal",
    "ratio_to_best_peer", "why_missing",
]  # fmt: skip


def bench(*arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(hpresil.__file__).parents[1])}
    command = [sys.executable, "-m", "bench", "micro", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, timeout=100, capture_output=True, text=True, check=False
    )


def test_a_bench_writes_rows_and_what_they_depend_on(tmp_path):
    done = bench("copy_checksum", "--quick", "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "rows.json").read_text())
    assert list(written) == ["machine", "rows"]
    about = written["machine"]
    assert about["quick"] is True
    assert about["command"] == "python -m bench micro copy_checksum --quick"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", about["date"])
    assert about["commit"]
    for one in written["rows"]:
        assert list(one) == FIELDS
        assert one["min"] <= one["median"] <= one["max"]
        assert one["runs"] == 3
        assert f"| {one['contender']} |" in done.stdout


def test_an_unknown_bench_is_named():
    done = bench("nothing")
    assert done.returncode == 2
    assert "no such bench: nothing; there are:" in done.stderr
