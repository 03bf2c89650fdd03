"""``hpresil compare``: output and exit status."""

import argparse
import json

import pytest

from hpresil.cli import compare
from hpresil.membership.messages import Committed
from hpresil.telemetry.recorder import Recorder


def run(*words):
    parser = argparse.ArgumentParser(prog="hpresil")
    compare.add_parser(parser.add_subparsers(dest="verb"))
    return compare.main(parser.parse_args(["compare", *map(str, words)]))


def written(path, losses, samples="ab"):
    recorder = Recorder(path)
    for step, loss in enumerate(losses):
        report = {"grad_norm": (1.0).hex(), "samples": samples, "state": "", "generation": 1, "world_size": 1}
        recorder.add(0, Committed(step=step, loss=loss.hex(), **report), now=0.0)
    recorder.close()
    return path


@pytest.fixture
def records(tmp_path):
    return {
        "a": written(tmp_path / "a", [1.5, 0.1]),
        "same": written(tmp_path / "same", [1.5, 0.1]),
        "other": written(tmp_path / "other", [1.5, 0.1 + 2**-56]),
        "longer": written(tmp_path / "longer", [1.5, 0.1, 0.05]),
        "samples": written(tmp_path / "samples", [1.5, 0.1], samples="cd"),
    }


def test_equal_records_end_with_status_0(records, capsys):
    assert run(records["a"], records["same"]) == 0
    assert capsys.readouterr().out == "equal, 2 steps\n"


def test_a_difference_is_shown_in_hex_and_decimal(records, capsys):
    assert run(records["a"], records["other"]) == 1
    out = capsys.readouterr().out
    assert "first at step 1, loss" in out
    assert "0x1.999999999999ap-4 (0.1)" in out
    assert "0x1.999999999999bp-4 (0.10000000000000002)" in out


def test_samples_are_shown_as_they_are(records, capsys):
    assert run(records["a"], records["samples"]) == 1
    assert "step 0, samples\n  ab  " in capsys.readouterr().out


def test_the_record_that_lacks_a_step_is_named(records, capsys):
    assert run(records["longer"], records["a"]) == 1
    assert (
        capsys.readouterr().out == f"different: step 2 is in {records['longer']} but not in {records['a']}\n"
    )
    assert run(records["a"], records["longer"]) == 1
    assert (
        capsys.readouterr().out == f"different: step 2 is in {records['longer']} but not in {records['a']}\n"
    )


def test_the_result_as_json(records, capsys):
    assert run(records["a"], records["same"], "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"equal": True, "steps": 2}
    assert run(records["a"], records["other"], "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "equal": False,
        "difference": {
            "step": 1,
            "field": "loss",
            "a": "0x1.999999999999ap-4",
            "b": "0x1.999999999999bp-4",
            "a_decimal": "0.1",
            "b_decimal": "0.10000000000000002",
        },
    }
    assert run(records["a"], records["longer"], "--json") == 1
    assert json.loads(capsys.readouterr().out)["difference"] == {
        "step": 2,
        "field": "step",
        "a": None,
        "b": "2",
    }


@pytest.mark.parametrize("text", ["", "hello\n", '{"step": 0'])
def test_a_file_that_is_no_record_ends_with_status_2_and_one_line(records, tmp_path, capsys, text):
    (tmp_path / "bad").write_text(text)
    assert run(records["a"], tmp_path / "bad") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hpresil: ")
    assert captured.err.count("\n") == 1
    assert str(tmp_path / "bad") in captured.err


def test_a_missing_file_ends_with_status_2(records, tmp_path, capsys):
    assert run(tmp_path / "nothing", records["a"]) == 2
    assert "cannot read the record" in capsys.readouterr().err
