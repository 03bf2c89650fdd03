"""Building byte tokens of text files."""

import os

import numpy as np
import pytest

from hpresil.base.errors import ConfigError, DataError
from hpresil.data import build as build_module
from hpresil.data.build import build
from hpresil.data.format import open_tokens, verify


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "text"
    for name, text in {"b.py": "bb", "a/z.py": "z", "a/y.txt": "yyy", "c.py": "", "a/x.py": "x\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def tokens(path):
    return open_tokens(path)[1].tolist()


def test_bytes_become_tokens_with_a_separator_between_files(tmp_path, tree):
    built = build(tmp_path / "out", [tree / "b.py", tree / "a/z.py"])
    assert tokens(tmp_path / "out") == [*b"bb", 256, *b"z"]
    assert (built.files, built.text_bytes, built.header.tokens) == (2, 3, 4)
    assert (built.header.vocabulary, built.header.documents) == (257, 2)


def test_directories_are_searched_in_sorted_order_and_empty_files_leave_no_trace(tmp_path, tree):
    built = build(tmp_path / "out", [tree])
    assert tokens(tmp_path / "out") == [*b"bb", 256, *b"x\n", 256, *b"yyy", 256, *b"z"]
    assert (built.files, built.empty) == (4, 1)


@pytest.mark.parametrize(
    ("glob", "text"), [("*.py", [*b"bb", 256, *b"x\n", 256, *b"z"]), ("a/*.py", [*b"x\n", 256, *b"z"])]
)
def test_a_pattern_chooses_the_files_below_a_directory(tmp_path, tree, glob, text):
    build(tmp_path / "out", [tree], glob=glob)
    assert tokens(tmp_path / "out") == text


def test_a_pattern_does_not_hold_for_a_file_that_is_named(tmp_path, tree):
    build(tmp_path / "out", [tree / "a/y.txt"], glob="*.py")
    assert tokens(tmp_path / "out") == [*b"yyy"]


def test_large_files_stream_through_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "PIECE_BYTES", 100)
    raw = np.random.default_rng(0).integers(0, 256, 12_345, np.uint8)
    (tmp_path / "big").write_bytes(raw.tobytes())
    build(tmp_path / "out", [tmp_path / "big", tmp_path / "big"])
    assert tokens(tmp_path / "out") == [*raw.tolist(), 256, *raw.tolist()]
    verify(tmp_path / "out")


def test_the_same_inputs_give_the_same_file(tmp_path, tree):
    build(tmp_path / "one", [tree])
    build(tmp_path / "two", [tree])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_target_inside_of_an_input_directory_is_not_its_own_input(tmp_path, tree):
    first = build(tree / "out", [tree])
    again = build(tree / "out", [tree], force=True)
    assert first.header == again.header


def test_missing_inputs_and_patterns_without_a_match_are_refused(tmp_path, tree):
    with pytest.raises(ConfigError, match="nothing does not exist"):
        build(tmp_path / "out", [tree, tmp_path / "nothing"])
    with pytest.raises(ConfigError, match=r"no file below .*text matches '\*\.rs'; change --glob"):
        build(tmp_path / "out", [tree], glob="*.rs")
    with pytest.raises(ConfigError, match="no input files"):
        build(tmp_path / "out", [])
    assert os.listdir(tmp_path) == ["text"]


def test_inputs_without_a_byte_are_refused(tmp_path, tree):
    with pytest.raises(DataError, match="the 1 input files hold no bytes"):
        build(tmp_path / "out", [tree / "c.py"])
    assert os.listdir(tmp_path) == ["text"]


def test_an_existing_target_is_replaced_only_by_force(tmp_path, tree):
    build(tmp_path / "out", [tree / "b.py"])
    with pytest.raises(ConfigError, match="exists already"):
        build(tmp_path / "out", [tree])
    build(tmp_path / "out", [tree / "a/z.py"], force=True)
    assert tokens(tmp_path / "out") == [*b"z"]


def test_the_target_cannot_be_an_input(tmp_path, tree):
    with pytest.raises(ConfigError, match="both an input and the file to write"):
        build(tree / "b.py", [tree / "b.py"], force=True)
    assert (tree / "b.py").read_text() == "bb"


def test_what_is_no_regular_file_is_left_out_below_a_directory_and_refused_by_name(tmp_path, tree):
    os.mkfifo(tree / "pipe")
    (tree / "dangling").symlink_to("nowhere")
    built = build(tmp_path / "out", [tree])
    assert sorted(path.name for path in built.skipped) == ["dangling", "pipe"]
    with pytest.raises(ConfigError, match="pipe is neither a regular file nor a directory"):
        build(tmp_path / "again", [tree / "pipe"])


def test_files_without_permission_are_named_before_anything_is_written(tmp_path, tree, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "z.py")
    with pytest.raises(ConfigError, match=r"no permission to read .*a/z\.py; leave them out"):
        build(tmp_path / "out", [tree])
    assert os.listdir(tmp_path) == ["text"]


def test_a_file_that_cannot_be_read_after_all_is_named_and_nothing_is_left(tmp_path, tree, monkeypatch):
    list_files = build_module.list_files

    def list_and_lose(*args, **kwargs):
        found = list_files(*args, **kwargs)
        (tree / "a/z.py").unlink()
        return found

    monkeypatch.setattr(build_module, "list_files", list_and_lose)
    with pytest.raises(ConfigError, match=r"cannot read the input .*a/z\.py: No such file"):
        build(tmp_path / "out", [tree])
    assert os.listdir(tmp_path) == ["text"]


def test_a_full_disk_is_reported_and_nothing_is_left(tmp_path, tree, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write the token file .*No space left on device"):
        build(tmp_path / "out", [tree])
    assert os.listdir(tmp_path) == ["text"]
