"""Writing a token file as a stream.

Problem: a corpus does not fit into memory, and a build that ends half way must not leave a file that
looks whole.

Design: tokens stream into a temporary file beside the target while the block checksums are computed;
the header is written last, then fsync, rename, fsync of the directory. The target is whole or absent.

Not guaranteed: a build killed with SIGKILL leaves its temporary file, ``.NAME.PID.partial``.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np

from hpresil.base.errors import ConfigError, DataError
from hpresil.data.format import BLOCK_BYTES, HEADER, Header, Tokens


class TokenWriter:
    """Writes a token file as a stream; a context manager. The file appears at a successful end only.

    Args:
        path: The file to write.
        vocabulary: Every token must be below this; decides 2 or 4 bytes a token.
        force: Replace an existing file.

    Raises:
        ConfigError: The target exists (without ``force``), is no regular file, or its directory is missing.
        DataError: A token is not below ``vocabulary``.
    """

    def __init__(self, path: str | os.PathLike[str], *, vocabulary: int, force: bool = False) -> None:
        self.path = Path(path)
        check_target(self.path, force=force)
        if not 1 <= vocabulary < 1 << 32:
            raise ConfigError(f"a vocabulary has between 1 and 2^32 - 1 tokens, got {vocabulary}")
        self.vocabulary = vocabulary
        self.tokens = 0
        self.documents = 0
        self._dtype = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
        self._crcs: list[int] = []
        self._crc = 0
        self._room = BLOCK_BYTES
        self.partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self.header: Header | None = None
        self._file = open(self.partial, "wb")  # noqa: SIM115  closed by `commit` or `discard`
        self._file.write(bytes(HEADER.size))

    def append(self, tokens: Tokens) -> None:
        """Append 1-D integer ``tokens``."""
        if tokens.size == 0:
            return
        if int(tokens.max()) >= self.vocabulary or int(tokens.min()) < 0:
            bad = tokens[(tokens >= self.vocabulary) | (tokens < 0)][0]
            raise DataError(f"token {bad} is not between 0 and {self.vocabulary - 1}, the vocabulary's last")
        raw = memoryview(tokens.astype(self._dtype).tobytes())
        self._file.write(raw)
        self.tokens += tokens.size
        while len(raw):
            piece, raw = raw[: self._room], raw[self._room :]
            self._crc = zlib.crc32(piece, self._crc)
            self._room -= len(piece)
            if self._room == 0:
                self._end_block()

    def count_document(self) -> None:
        """Count one document."""
        self.documents += 1

    def commit(self) -> Header:
        """Make the file durable under its name and return its header."""
        if self._room < BLOCK_BYTES:
            self._end_block()
        listed = struct.pack(f"<{len(self._crcs)}I", *self._crcs)
        header = Header(
            self._dtype.itemsize,
            self.tokens,
            self.vocabulary,
            BLOCK_BYTES,
            self.documents,
            zlib.crc32(listed),
        )
        self._file.write(listed)
        self._file.seek(0)
        self._file.write(header.pack())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.partial, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.header = header
        return header

    def discard(self) -> None:
        """Remove what was written; does nothing after `commit`."""
        try:
            self._file.close()
        except OSError:
            pass  # the disk may be full; what is buffered is not wanted any more
        self.partial.unlink(missing_ok=True)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()

    def _end_block(self) -> None:
        self._crcs.append(self._crc)
        self._crc, self._room = 0, BLOCK_BYTES


def check_target(path: Path, *, force: bool) -> None:
    """Raise ConfigError if a token file cannot be written at ``path``."""
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name the token file to write")
    if os.path.lexists(path) and not force:
        raise ConfigError(f"{path} exists already; choose another name, or pass --force to replace it")
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"{path} is no regular file; choose another name")
    if not path.parent.is_dir():
        raise ConfigError(f"the directory {path.parent} does not exist; create it first")
