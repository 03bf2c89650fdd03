"""``hpresil data``: build, info and verify."""

import argparse
import os
import subprocess
import sys

import pytest

from hpresil.cli import data
from hpresil.data.tokens import TokenDataset


def run(*words):
    parser = argparse.ArgumentParser(prog="hpresil")
    data.add_parser(parser.add_subparsers(dest="verb"))
    return data.main(parser.parse_args(["data", *map(str, words)]))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.py").write_text("print(1)\n")
    (tmp_path / "text" / "b.py").write_text("")
    (tmp_path / "text" / "c.txt").write_text("hello")
    return tmp_path / "text"


def failure(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("hpresil: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_build_prints_tokens_files_and_bytes_and_makes_a_data_set(tmp_path, text, capsys):
    assert run("build", tmp_path / "out", text) == 0
    out = capsys.readouterr().out
    assert "15 tokens from 2 files (14 bytes), vocabulary 257, 98 bytes on disk" in out
    assert "1 empty files were left out" in out
    assert len(TokenDataset(tmp_path / "out", seq_len=7)) == 2


def test_build_says_what_is_no_regular_file(tmp_path, text, capsys):
    os.mkfifo(text / "pipe")
    assert run("build", tmp_path / "out", text) == 0
    assert f"1 entries were left out, they are no regular files: {text / 'pipe'}" in capsys.readouterr().out


def test_build_takes_a_pattern_and_replaces_by_force(tmp_path, text, capsys):
    assert run("build", tmp_path / "out", text, "--glob", "*.txt") == 0
    assert run("build", tmp_path / "out", text, "--glob", "*.py") == 1
    assert run("build", tmp_path / "out", text, "--glob", "*.py", "--force") == 0
    captured = capsys.readouterr()
    assert "exists already; choose another name, or pass --force" in captured.err
    assert "9 tokens from 1 files" in captured.out


@pytest.mark.parametrize(
    ("words", "why"),
    [(["nowhere"], "nowhere does not exist"), (["text", "--glob", "*.rs"], "matches '*.rs'")],
)
def test_wrong_inputs_end_with_status_1_and_one_line(tmp_path, text, capsys, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    assert run("build", "out", *words) == 1
    assert why in failure(capsys)
    assert os.listdir(tmp_path) == ["text"]


def test_an_interrupted_build_ends_with_status_130(tmp_path, text, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "build", interrupt)
    assert run("build", tmp_path / "out", text) == 130
    assert "interrupted" in failure(capsys)


def test_info_prints_the_header(tmp_path, text, capsys):
    run("build", tmp_path / "out", text)
    capsys.readouterr()
    assert run("info", tmp_path / "out") == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if "bytes" not in line)
    assert (rows["tokens"], rows["documents"], rows["vocabulary"], rows["format"]) == ("15", "2", "257", "1")
    assert len(rows["fingerprint"]) == 32


def test_verify_tells_an_intact_file_from_a_damaged_one(tmp_path, text, capsys):
    run("build", tmp_path / "out", text)
    assert run("verify", tmp_path / "out") == 0
    assert "intact, 15 tokens in 1 blocks" in capsys.readouterr().out
    raw = bytearray((tmp_path / "out").read_bytes())
    raw[70] ^= 1
    (tmp_path / "out").write_bytes(raw)
    assert run("verify", tmp_path / "out") == 1
    assert "tokens 0 to 14; copy or build it again" in failure(capsys)


@pytest.mark.parametrize("action", ["info", "verify"])
def test_a_foreign_file_ends_with_status_1_and_one_line(text, capsys, action):
    assert run(action, text / "c.txt") == 1
    assert "not a token file" in failure(capsys)


def test_the_verb_does_not_import_torch():
    code = "import sys, hpresil.cli.data, hpresil.cli.compare; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
