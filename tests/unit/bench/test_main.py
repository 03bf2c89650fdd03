"""`python -m bench`: what fails is a row and the status, the rest goes on, and results are written whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import __main__ as bench, rows
from bench.contenders import run_processes
from bench.rows import BROKEN, row

PARTS = [("suite", "bad"), ("suite", "good")]


def suite_of(**parts):
    """Return a suite whose parts yield these rows, or raise what is among them."""

    def measured(part, quick):
        for one in parts[part]:
            if isinstance(one, BaseException):
                raise one
            yield one

    return {"suite": SimpleNamespace(names=lambda quick: list(parts), rows=measured)}


def figure(case):
    return row("suite", case, "hpresil", metric="x", unit="s", figures=[1.0])


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("no disk"), "OSError: no disk"), (SystemExit("no device"), "SystemExit: no device")],
)
def test_a_part_that_fails_is_a_row_and_the_status_and_the_others_go_on(tmp_path, capsys, error, said):
    suites = suite_of(bad=[figure("bad"), error], good=[figure("good")])
    assert bench.run(suites, PARTS, {}, quick=True, file=tmp_path / "r.json") == 1
    _, written = rows.read(tmp_path / "r.json")
    assert [(one.case, one.metric, one.why_missing) for one in written] == [
        ("bad", "x", None),
        ("bad", "all", f"{BROKEN}{said}"),
        ("good", "x", None),
    ]
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert f"{BROKEN}{said}" in shown.out


def test_a_contender_that_cannot_run_is_no_fault_of_the_bench(tmp_path):
    why = rows.missing("suite", "bad", "peer", "x", "s", why="it cannot be installed")
    suites = suite_of(bad=[why], good=[figure("good")])
    assert bench.run(suites, PARTS, {}, quick=True, file=None) == 0


def test_the_load_of_each_part_is_written_and_the_caption_says_its_range(tmp_path, monkeypatch):
    loads = iter([0.5, 0.25, 2.0, 3.0])
    monkeypatch.setattr(bench, "load", lambda: next(loads))
    suites = suite_of(bad=[figure("bad")], good=[figure("good")])
    assert bench.run(suites, PARTS, {"cpu": "this"}, quick=True, file=tmp_path / "r.json") == 0
    about, _ = rows.read(tmp_path / "r.json")
    assert about["load_averages"] == {"suite bad": [0.25, 0.5], "suite good": [2.0, 3.0]}
    assert rows.caption(about).startswith("cpu this, load averages 0.25 to 3, versions")


def test_a_file_that_cannot_be_written_any_more_ends_nothing(tmp_path, capsys):
    suites = suite_of(bad=[figure("bad")], good=[figure("good")])
    assert bench.run(suites, PARTS, {}, quick=True, file=tmp_path / "gone" / "r.json") == 1
    shown = capsys.readouterr()
    assert "## suite: good" in shown.out
    assert "the rows cannot be written to" in shown.err


def test_results_are_there_as_they_were_if_writing_them_fails(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    rows.write(path, [figure("a")], {})
    before, whole = path.read_text(), Path.write_text

    def half(self, text):
        whole(self, text[: len(text) // 2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(Path, "write_text", half)
        rows.write(path, [figure("b")], {})
    assert path.read_text() == before
    rows.write(path, [figure("b")], {})
    assert json.loads(path.read_text())["rows"][0]["case"] == "b"
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]


def of_command(monkeypatch, *arguments):
    """Return the parts that a command line runs, and whether in the quick form."""
    ran = []

    def run(suites, parts, about, *, quick, file):
        ran.append((parts, quick))
        return 0

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(bench.signal, "signal", lambda number, does: None)
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return bench.main(), ran


def test_any_case_may_be_named_with_quick_and_one_is_run_if_none_is(monkeypatch):
    hang = [("recovery", "hang-50m-2+1")]
    assert of_command(monkeypatch, "recovery", "hang-50m-2+1", "--quick") == (0, [(hang, True)])
    small = [("snapshot", "5m-busy")]
    for quick in ([], ["--quick"]):
        assert of_command(monkeypatch, "snapshot", "5m-busy", *quick) == (0, [(small, bool(quick))])
    default = [("recovery", "sigkill-5m-2+1")]
    assert of_command(monkeypatch, "recovery", "--quick") == (0, [(default, True)])
    _, ((all_parts, quick),) = of_command(monkeypatch, "recovery")
    assert len(all_parts) > 5
    assert not quick


def test_a_folder_that_is_not_there_is_named_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        of_command(monkeypatch, "steady", "--json", str(tmp_path / "none" / "r.json"))
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


ENDLESS = """
import sys
from bench import __main__ as bench
from bench.contenders import Job, launched
from bench.contenders.scratch import scratch
from scripted_contender import Scripted

SLEEPS = "import os, time; open(os.environ['BENCH_OUT'] + '/begun', 'w'); time.sleep(100)"

def run(*arguments, **more):
    with scratch("endless") as directory:
        launched.run(Scripted("endless", scripts=(SLEEPS,)), Job("small", 1, 1), directory)

bench.run = run
sys.argv = ["bench", "steady"]
bench.main()
"""


def test_a_bench_that_is_told_to_end_leaves_no_process_and_no_directory(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([sys.executable, "-c", ENDLESS], env=environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (begun := list(tmp_path.glob("*/run/begun"))):
            assert time.monotonic() < end, "it has begun nothing"
            time.sleep(0.05)
        directory = begun[0].parent
        assert len(run_processes.of(directory)) == 1
        command.terminate()
        assert command.wait(60) != 0
    finally:
        command.kill()
        command.wait(60)
    assert run_processes.of(directory) == []
    assert not directory.parent.exists()


def test_results_that_lie_in_the_tree_are_no_change_of_what_is_measured(tmp_path, monkeypatch):
    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(
            ["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=30
        )

    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "suite.py").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    (tmp_path / "bench" / "results" / "new.json").write_text("{}")
    assert " with changes" not in bench.commit()
    (tmp_path / "bench" / "suite.py").write_text("2\n")
    assert bench.commit().endswith(" with changes")
