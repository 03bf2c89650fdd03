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
    "ratio_to_best_peer", "why_missing", "ratio_to_best_tuned_peer", "baseline", "note",
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
    assert {"torch", "memory_limit_gib", "priorities_can_be_raised", "versions"} <= set(about)
    (least, most) = about["load_averages"]["micro copy_checksum"]
    assert least <= most
    for one in written["rows"]:
        assert list(one) == FIELDS
        assert one["min"] <= one["median"] <= one["max"]
        assert one["runs"] == 3
        assert one["unit"] in {"GB/s", "ratio_up"}
        assert (one["suite"], one["case"]) == ("micro", "copy_checksum: 32 MiB")
        assert f"| {one['contender']} |" in done.stdout


def test_a_file_of_before_some_keys_can_be_read(tmp_path):
    old = dict.fromkeys(FIELDS[:-3], None) | {"suite": "recovery", "median": 1.0}
    (tmp_path / "old.json").write_text(json.dumps({"machine": {}, "rows": [old]}))
    _, (one,) = rows.read(tmp_path / "old.json")
    assert (one.median, one.note, one.baseline, one.ratio_to_best_tuned_peer) == (1.0, None, None, None)


def test_a_figure_stands_beside_both_kinds_of_peers():
    one = rows.row("s", "c", "hpresil", metric="x", unit="s", figures=[3, 1, 2], peer=4, tuned_peer=1)
    assert (one.min, one.median, one.max, one.runs) == (1, 2, 3, 3)
    assert (one.ratio_to_best_peer, one.ratio_to_best_tuned_peer) == (0.5, 2)
    assert rows.row("s", "c", "hpresil", metric="x", unit="s", figures=[3]).ratio_to_best_peer is None


def test_a_table_shows_the_baseline_where_there_is_no_floor_and_the_note():
    common = {"metric": "x", "unit": "s", "figures": [2], "baseline": 4, "tuned_peer": 8}
    lines = rows.table(
        [
            rows.row("s", "c", "a", **common, note="1 failed attempt: a | b\nc"),
            rows.row("s", "c", "b", **common, floor=1, goal=3),
            rows.missing("s", "c", "d", "x", "s", why="it cannot"),
        ]
    ).splitlines()
    assert lines[0].endswith("| floor | goal | of the best peer | of the best tuned peer | note |")
    assert lines[2:] == [
        "| c | a | x | s | 2 | 2 | 2 | 4 (baseline) |  |  | 0.25 | 1 failed attempt: a / b c |",
        "| c | b | x | s | 2 | 2 | 2 | 1 | 3 |  | 0.25 |  |",
        "| c | d | x | s | it cannot |  |  |  |  |  |  |  |",
    ]


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
