"""The token file: its header, opening it, checking it.

Problem: a training run maps the same file of tokens from many processes for weeks. A file that is
truncated, of another kind, or damaged must be found when it is opened, not as a strange loss.

Design: one file: a header of 64 bytes with its own checksum, the tokens as unsigned little-endian
integers, then one CRC-32 for every block of the body (docs/formats.md has the layout). Opening reads the
header only and compares the size of the file; `verify` reads all of it.

Not guaranteed: a file that somebody shortens while it is mapped kills its readers with SIGBUS; damage
inside the body is noticed by `verify` only.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hpresil.base.errors import DataError

MAGIC = b"\x89HPTOK\r\n"
FORMAT_VERSION = 1
BLOCK_BYTES = 1 << 20
HEADER = struct.Struct("<8sIIQIIQI16sI")
HOW_TO_BUILD = "build one with: hpresil data build OUT INPUT…"

Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What the first 64 bytes of a token file say.

    Attributes:
        token_bytes: Bytes of one token, 2 or 4.
        tokens: How many tokens the body holds.
        vocabulary: Every token is below this.
        block_bytes: Bytes of the body that share one checksum.
        documents: How many documents were written.
        blocks_crc: CRC-32 of the list of block checksums.
    """

    token_bytes: int
    tokens: int
    vocabulary: int
    block_bytes: int
    documents: int
    blocks_crc: int

    @property
    def body_bytes(self) -> int:
        """Bytes of all tokens."""
        return self.tokens * self.token_bytes

    @property
    def blocks(self) -> int:
        """How many block checksums follow the body."""
        return -(-self.body_bytes // self.block_bytes)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return HEADER.size + self.body_bytes + 4 * self.blocks

    @property
    def fingerprint(self) -> str:
        """32 hex digits that depend on the content of the file and on nothing else."""
        return hashlib.blake2b(self.pack(), digest_size=16).hexdigest()

    def pack(self) -> bytes:
        """Return the header as it stands in the file."""
        fields = (self.token_bytes, self.tokens, self.vocabulary, self.block_bytes, self.documents)
        raw = HEADER.pack(MAGIC, FORMAT_VERSION, *fields, self.blocks_crc, bytes(16), 0)[:-4]
        return raw + struct.pack("<I", zlib.crc32(raw))


def read_header(path: str | os.PathLike[str]) -> Header:
    """Return the header of the token file at ``path`` after checking it and the size of the file.

    Raises:
        DataError: There is no such file, or it is no whole token file; the message says which, and
            what to do.
    """
    if Path(path).is_dir():
        raise DataError(f"{path} is a directory; pass the token file itself, the OUT of `hpresil data build`")
    try:
        with open(path, "rb") as file:
            raw = file.read(HEADER.size)
            found = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"cannot read the token file {path}: {error.strerror}; {HOW_TO_BUILD}") from error
    header = _parse(path, raw)
    if found < header.file_bytes:
        raise DataError(
            f"{path} is truncated: expected {header.file_bytes} bytes for {header.tokens} tokens, "
            f"found {found}; copy or build it again"
        )
    if found > header.file_bytes:
        raise DataError(
            f"{path} is too long: expected {header.file_bytes} bytes for {header.tokens} tokens, "
            f"found {found}; token files cannot be appended to, build it again"
        )
    return header


def _parse(path: str | os.PathLike[str], raw: bytes) -> Header:
    if not raw:
        raise DataError(f"{path} is empty; {HOW_TO_BUILD}")
    if raw[: len(MAGIC)] != MAGIC:
        raise DataError(f"{path} is not a token file (it begins with {raw[:8]!r}); {HOW_TO_BUILD}")
    if len(raw) < HEADER.size:
        raise DataError(
            f"{path} is truncated: expected a header of {HEADER.size} bytes, found {len(raw)}; "
            f"copy or build it again"
        )
    _, version, *fields, _, crc = HEADER.unpack(raw)
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has token file format {version}, this hpresil reads {FORMAT_VERSION}; build it again "
            f"with `hpresil data build`, or use the hpresil that wrote it"
        )
    if crc != zlib.crc32(raw[:-4]):
        raise DataError(f"{path} has a damaged header (checksum differs); copy or build it again")
    header = Header(*fields)
    if header.token_bytes not in (2, 4) or header.block_bytes < 1:
        raise DataError(f"{path} has a header that makes no sense: {header}; {HOW_TO_BUILD}")
    return header


def open_tokens(path: str | os.PathLike[str]) -> tuple[Header, Tokens]:
    """Return the header and the tokens, mapped read-only: 1-D, uint16 or uint32.

    Raises:
        DataError: As `read_header`.
    """
    header = read_header(path)
    dtype = np.dtype(f"<u{header.token_bytes}")
    if header.tokens == 0:
        return header, np.empty(0, dtype)
    return header, np.memmap(path, dtype, "r", offset=HEADER.size, shape=(header.tokens,))


def verify(path: str | os.PathLike[str]) -> Header:
    """Read the whole file and compare every checksum.

    Raises:
        DataError: As `read_header`, or a block differs; the message names the first damaged block's
            tokens and how many blocks are damaged.
    """
    header = read_header(path)
    try:
        with open(path, "rb") as file:
            damaged = _damaged_blocks(file, header)
    except OSError as error:
        raise DataError(f"cannot read the token file {path}: {error.strerror}") from error
    if damaged is None:
        raise DataError(f"{path}: the list of block checksums is damaged; copy or build it again")
    if damaged:
        begin = damaged[0] * header.block_bytes // header.token_bytes
        end = min(header.tokens, begin + header.block_bytes // header.token_bytes)
        raise DataError(
            f"{path} is damaged: {len(damaged)} of {header.blocks} blocks differ from their checksum, "
            f"the first holds tokens {begin} to {end - 1}; copy or build it again"
        )
    return header


def _damaged_blocks(file: BinaryIO, header: Header) -> list[int] | None:
    """Return the numbers of the blocks that differ from their checksum, None if the list itself does."""
    file.seek(HEADER.size + header.body_bytes)
    listed = file.read(4 * header.blocks)
    if zlib.crc32(listed) != header.blocks_crc:
        return None
    file.seek(HEADER.size)
    expected = (crc for (crc,) in struct.iter_unpack("<I", listed))
    found = (zlib.crc32(block) for block in _blocks(file, header))
    return [number for number, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]


def _blocks(file: BinaryIO, header: Header) -> Iterator[bytes]:
    left = header.body_bytes
    while left:
        block = file.read(min(left, header.block_bytes))
        left -= len(block)
        yield block
        if not block:
            return
