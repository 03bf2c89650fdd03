import argparse
import json
import subprocess
import sys

import pytest

from hpresil.base.errors import JobStopped
from hpresil.cli import demo
from hpresil.recipes.demo.report import FaultRow
from hpresil.recipes.demo.show import Result
from hpresil.recipes.demo.verdicts import Verdict

ROW = FaultRow(
    kind="killed",
    detect_ms=0.4,
    regroup_ms=20,
    restore_ms=15,
    first_step_ms=200,
    total_ms=235.4,
    steps_redone=0,
)


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *flags])


def result(*, identical: bool = True, problems: tuple[str, ...] = ()) -> Result:
    verdicts = {"bit_identical": Verdict(identical, "why [a]"), "exactly_once": Verdict(True, "why")}
    return Result(verdicts, [ROW], list(problems), [])


@pytest.fixture
def shown(monkeypatch):
    """Put a result in place of the jobs; the list gets the directories that were used."""
    used = []

    def install(outcome):
        def show(directory, script, console):
            used.append(directory)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr("hpresil.recipes.demo.show.show", show)
        return used

    return install


def test_success_prints_the_verdicts_writes_the_json_and_leaves_no_directory(shown, tmp_path, capsys):
    used = shown(result())
    assert demo.main(parse("--json", str(tmp_path / "demo.json"))) == 0
    out = capsys.readouterr().out
    assert "bit_identical: yes  (why [a])" in out
    assert "killed, spare takes over" in out
    written = json.loads((tmp_path / "demo.json").read_text())
    assert written["verdicts"] == {"bit_identical": True, "exactly_once": True}
    assert written["faults"][0]["total_ms"] == 235.4
    assert not used[0].exists()


def test_a_failed_verdict_is_status_one_and_keeps_the_evidence(shown, tmp_path, capsys):
    shown(result(identical=False))
    directory = tmp_path / "demo"
    assert demo.main(parse("--run-dir", str(directory), "--json", str(tmp_path / "demo.json"))) == 1
    out = capsys.readouterr().out
    assert "bit_identical: NO" in out
    assert f"logs and records: {directory}" in out
    assert json.loads((tmp_path / "demo.json").read_text())["verdicts"]["bit_identical"] is False


def test_a_fault_that_did_not_happen_is_status_one(shown, tmp_path, capsys):
    shown(result(problems=("there was no recovery of kind 'hung'",)))
    assert demo.main(parse("--run-dir", str(tmp_path / "demo"))) == 1
    assert "problem: there was no recovery of kind 'hung'" in capsys.readouterr().out


def test_a_job_that_cannot_run_is_one_line_and_status_one(shown, tmp_path, capsys):
    shown(JobStopped("the launcher's exit status is 2"))
    assert demo.main(parse("--run-dir", str(tmp_path / "demo"))) == 1
    assert capsys.readouterr().err == "hpresil: the launcher's exit status is 2\n"


def test_an_interrupt_is_status_130_and_leaves_no_directory(shown, capsys):
    used = shown(KeyboardInterrupt())
    assert demo.main(parse()) == 130
    assert not used[0].exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--json", "/nowhere/demo.json"], "there is no directory /nowhere; create it first"),
    ],
)
def test_wrong_flags_are_refused_before_anything_starts(shown, capsys, flags, message):
    used = shown(result())
    assert demo.main(parse(*flags)) == 1
    assert message in capsys.readouterr().err
    assert used == []


def test_a_run_directory_with_something_in_it_is_refused(shown, tmp_path, capsys):
    used = shown(result())
    (tmp_path / "precious").write_text("")
    assert demo.main(parse("--run-dir", str(tmp_path))) == 1
    assert "is not empty; name a new directory" in capsys.readouterr().err
    assert used == []


def test_the_verb_does_not_import_torch_before_it_runs():
    code = "import sys, hpresil.cli.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_reports_are_kept_and_named(shown, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "events.jsonl").write_text("")
    (tmp_path / "corpus.tokens").write_text("")
    (tmp_path / "faults.html").write_text("")
    outcome = result()
    outcome.reports.append(tmp_path / "faults.html")
    shown(outcome)
    assert demo.main(parse()) == 0
    assert f"report: {tmp_path / 'faults.html'}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["faults.html"]
