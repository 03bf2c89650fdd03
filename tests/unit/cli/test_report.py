import json
import subprocess
import sys

import pytest

import told_job
from hpresil.cli.main import main


@pytest.fixture
def run(tmp_path):
    return told_job.write(tmp_path / "run")


def test_a_report_goes_into_the_run_directory_unless_told_otherwise(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert main(["report", str(run), "-o", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").read_text() == (run / "report.html").read_text()


def test_pictures_are_written_on_request(run, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert main(["report", str(run), "--png", str(tmp_path / "png")]) == 0
    written = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert {"goodput.png", "loss.png", "recovery-1.png", "speed.png", "workers.png"} <= set(written)
    assert str(tmp_path / "png" / "loss.png") in capsys.readouterr().out


def test_a_trace_is_one_json_file(run, tmp_path, capsys):
    assert main(["trace", str(run), "-o", str(tmp_path / "t.json")]) == 0
    assert "entries of 5 processes" in capsys.readouterr().out
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


@pytest.mark.parametrize("verb", ["report", "trace"])
def test_a_directory_without_a_job_is_one_clear_line(verb, tmp_path, capsys):
    assert main([verb, str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"hpresil {verb}: {tmp_path} holds no job: there is no events.jsonl; name a run directory\n"
    )


@pytest.mark.parametrize("verb", ["report", "trace"])
def test_a_file_that_cannot_be_written_is_one_clear_line(verb, run, tmp_path, capsys):
    assert main([verb, str(run), "-o", str(tmp_path / "no" / "where")]) == 2
    assert "cannot be written: No such file or directory; choose another with -o" in capsys.readouterr().err


def test_neither_imports_torch_or_matplotlib(run):
    code = "import sys; from hpresil.cli.main import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    for verb in ("report", "trace"):
        command = [sys.executable, "-c", code, verb, str(run)]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert not {"'torch'", "'matplotlib'", "'numpy'"} & set(ran.stdout.strip("[]\n").split(", "))
