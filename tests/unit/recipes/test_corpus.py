from pathlib import Path

import pytest

from hpresil.base.errors import DataError
from hpresil.data.tokens import TokenDataset
from hpresil.recipes.corpus import build_corpus, python_sources


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_the_library_itself_is_taken_in_sorted_order(tmp_path):
    write(tmp_path / "b.py", "b = 1\n")
    write(tmp_path / "a" / "z.py", "z = 1\n")
    write(tmp_path / "site-packages" / "torch.py", "no\n")
    write(tmp_path / "notes.txt", "no\n")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere")
    assert python_sources(tmp_path) == [tmp_path / "a" / "z.py", tmp_path / "b.py"]


def test_this_interpreter_has_ten_megabytes_of_source():
    assert sum(path.stat().st_size for path in python_sources()) > 10_000_000


def test_the_corpus_is_a_token_file(tmp_path):
    write(tmp_path / "lib" / "a.py", "x = 1\n" * 20)
    built = build_corpus(tmp_path / "corpus.tokens", tmp_path / "lib")
    assert built.text_bytes == 120
    inputs, targets = TokenDataset(built.path, seq_len=16)[0]
    assert bytes(inputs.tolist()) == b"x = 1\nx = 1\nx = "
    assert bytes(targets.tolist()) == b" = 1\nx = 1\nx = 1"


def test_a_library_without_source_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no Python source code below .*hpresil data build"):
        build_corpus(tmp_path / "corpus.tokens", tmp_path)
