"""A bench writes rows that can be compared: every field, and how many repeats were counted."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from bench import rows
from bench.micro import suite as micro

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
        assert one["unit"] in {"GB/s", "ratio_up"}
        assert (one["suite"], one["case"]) == ("micro", "copy_checksum: 32 MiB")
        assert f"| {one['contender']} |" in done.stdout


def test_a_call_has_its_seconds_its_processor_time_and_what_it_returned():
    calls = []

    def sleep():
        calls.append("sleep")
        time.sleep(0.05)
        return "slept"

    turns = rows.calls_in_turns({"sleep": sleep, "count": lambda: calls.append("count")}, repeats=2)
    assert calls == ["sleep", "count"] * 3
    assert [call.returned for call in turns["sleep"]] == ["slept", "slept"]
    assert all(call.processor_s < 0.04 < 0.05 <= call.seconds for call in turns["sleep"])


def test_small_parts_are_of_one_suite_with_their_bench_before_the_case(monkeypatch):
    made = rows.row("micro", "512 MiB", "memcpy", metric="rate", unit="GB/s", figures=[1.0])
    module = SimpleNamespace(rows=lambda quick: iter([made]))
    monkeypatch.setitem(sys.modules, "bench.micro.copy_checksum", module)
    (one,) = micro.rows("copy_checksum", True)
    assert one == replace(made, case="copy_checksum: 512 MiB")


def test_an_unknown_bench_is_named():
    done = bench("nothing")
    assert done.returncode == 2
    assert "no such bench: nothing; there are:" in done.stderr
