"""Byte tokens of any text files: the corpus that every machine can build.

Problem: a job needs real text without a tokenizer and without a download.

Design: token = byte; 256 stands between two documents, so the vocabulary is 257. Inputs are listed and
checked first, so a missing one costs no half-written file; then they stream through in pieces of 1 MiB.
Directories are walked in sorted order, so the same tree gives the same file.

Not guaranteed: files that change while they are read are taken as they are read. Symbolic links to
directories are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpresil.base.errors import ConfigError, DataError
from hpresil.data.format import Header
from hpresil.data.writer import TokenWriter, check_target

SEPARATOR = 256
VOCABULARY = 257
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Built:
    """What a build has written.

    Attributes:
        path: The token file.
        header: Its header.
        files: How many files went in.
        text_bytes: How many bytes they hold.
        empty: How many files had no bytes and were left out.
        skipped: Files below a directory that were left out because they are no regular files.
    """

    path: Path
    header: Header
    files: int
    text_bytes: int
    empty: int
    skipped: tuple[Path, ...]


def build(
    out: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]],
    *,
    glob: str = "*",
    force: bool = False,
) -> Built:
    """Write the bytes of ``inputs`` as a token file to ``out``.

    Args:
        out: The token file to write.
        inputs: Files, or directories that are searched recursively.
        glob: Which files below a directory are taken: a pattern for the name, or for the end of the path.
        force: Replace an existing ``out``.

    Raises:
        ConfigError: An input is missing or cannot be read, no file matches, or ``out`` exists.
        DataError: The inputs hold no bytes, or ``out`` cannot be written.
    """
    target = Path(out)
    check_target(target, force=force)
    files, skipped = list_files([Path(item) for item in inputs], glob=glob, out=target)
    taken = empty = text_bytes = 0
    try:
        with TokenWriter(target, vocabulary=VOCABULARY, force=force) as writer:
            for file in files:
                size = _append_file(writer, file)
                taken, empty, text_bytes = taken + (size > 0), empty + (size == 0), text_bytes + size
            if not text_bytes:
                raise DataError(f"the {len(files)} input files hold no bytes; nothing was written")
    except OSError as error:
        raise DataError(f"cannot write the token file {target}: {error.strerror}") from error
    assert writer.header is not None
    return Built(target, writer.header, taken, text_bytes, empty, tuple(skipped))


def list_files(inputs: list[Path], *, glob: str, out: Path) -> tuple[list[Path], list[Path]]:
    """Return the files to read, in order, and what was left out below directories.

    Raises:
        ConfigError: As `build`.
    """
    if not inputs:
        raise ConfigError("no input files; name files or directories of text")
    files: list[Path] = []
    skipped: list[Path] = []
    for item in inputs:
        if item.is_dir():
            for file in _below(item, glob):
                (files if file.is_file() else skipped).append(file)
        elif not item.exists():
            raise ConfigError(f"the input {item} does not exist")
        elif not item.is_file():
            raise ConfigError(f"the input {item} is neither a regular file nor a directory")
        elif item.resolve() == out.resolve():
            raise ConfigError(f"{item} is both an input and the file to write")
        else:
            files.append(item)
    files = [file for file in files if file.resolve() != out.resolve()]
    if not files:
        where = ", ".join(str(item) for item in inputs)
        raise ConfigError(f"no file below {where} matches {glob!r}; change --glob or the inputs")
    unreadable = [str(file) for file in files if not os.access(file, os.R_OK)]
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ConfigError(
            f"no permission to read {', '.join(unreadable[:5])}{more}; leave them out with --glob"
        )
    return files, skipped


def _below(directory: Path, glob: str) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigError(f"cannot list the directory {error.filename}: {error.strerror}") from error

    for parent, children, names in os.walk(directory, onerror=refuse):
        children.sort()
        for name in sorted(names):
            if Path(parent, name).relative_to(directory).match(glob):
                yield Path(parent, name)


def _append_file(writer: TokenWriter, file: Path) -> int:
    """Append one document and return its bytes; an empty file leaves no trace."""
    size = 0
    for piece in _pieces(file):
        if size == 0:
            if writer.documents:
                writer.append(np.array([SEPARATOR]))
            writer.count_document()
        writer.append(np.frombuffer(piece, np.uint8))
        size += len(piece)
    return size


def _pieces(file: Path) -> Iterator[bytes]:
    try:
        with open(file, "rb") as source:
            while piece := source.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise ConfigError(f"cannot read the input {file}: {error.strerror}") from error
