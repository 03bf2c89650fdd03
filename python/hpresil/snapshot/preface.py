"""What a frame says of itself: its first page, the word that makes it valid, its list of tensors.

Pure, and without torch, for those who move frames and never look into tensors. All numbers are little-endian;
the constants below are the format, see docs/formats.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields

import msgspec

from hpresil.base.errors import TransferFailed

MAGIC = b"hpresilF"
FORMAT = 3
HEADER_BYTES = 4096
SEAL_OFFSET = HEADER_BYTES - 8
SEAL_MARK = 0x5EA1ED01  # low half of a valid seal word; the high half is the header's CRC-32C
SECTIONS = ("parameters", "buffers", "rest", "optimizer")
"""In the order in which a newcomer needs them: with all but the last it can compute a gradient."""

FIXED = struct.Struct("<8sII qq QQ QQ QQ II")  # see Header, in this order
SECTION = struct.Struct("<QQII")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One tensor in the manifest; ``offset`` counts from the start of the frame."""

    name: str
    dtype: str
    shape: list[int]
    section: int
    offset: int
    nbytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What a frame holds: the python values and where each tensor lies."""

    values: bytes
    tensors: list[Row]


@dataclass(frozen=True)
class SectionSpan:
    """Where a section's tensors lie, how many they are, and the CRC-32C of their checksums."""

    offset: int
    nbytes: int
    tensors: int
    crc: int = 0


@dataclass(frozen=True)
class Header:
    """The first page of a frame, without the seal word."""

    version: int
    generation: int
    frame_bytes: int
    fills: int
    manifest_offset: int
    manifest_bytes: int
    sums_offset: int
    sums_bytes: int
    manifest_crc: int
    there: int  # leading tensors that are there; the checksums of later ones are zero
    sections: list[SectionSpan]

    @property
    def whole(self) -> bool:
        """Whether all tensors are there."""
        return self.there == self.sums_bytes // 4

    def packed(self) -> bytes:
        """Return the header page up to the seal word."""
        fixed = FIXED.pack(
            MAGIC, FORMAT, HEADER_BYTES, self.version, self.generation, self.frame_bytes, self.fills,
            self.manifest_offset, self.manifest_bytes, self.sums_offset, self.sums_bytes,
            self.manifest_crc, self.there,
        )  # fmt: skip
        spans = b"".join(SECTION.pack(s.offset, s.nbytes, s.tensors, s.crc) for s in self.sections)
        return (fixed + spans).ljust(SEAL_OFFSET, b"\0")


_NUMBERS = [field.name for field in fields(Header)][:-1]


def seal_word(header_crc: int) -> int:
    """Return the word that makes a frame with this header checksum valid."""
    return header_crc << 32 | SEAL_MARK


def parse_header(page: bytes, size: int, crc32c: Callable[[bytes], int], *, whole: bool = True) -> Header:
    """Return the header in the first page of a frame of ``size`` bytes; ``whole``: all tensors must be there.

    Raises:
        TransferFailed: Foreign, unsealed, damaged or truncated; the message says which.
    """
    magic, form, *numbers = FIXED.unpack_from(page)
    if magic != MAGIC:
        raise TransferFailed("this memory is not a snapshot frame (no magic number), or was never filled")
    if form != FORMAT:
        raise TransferFailed(
            f"the frame has format {form}, this hpresil reads {FORMAT}; use one version of it"
        )
    (word,) = struct.unpack_from("<Q", page, SEAL_OFFSET)
    if word != seal_word(crc32c(page[:SEAL_OFFSET])):
        raise _unusable(_UNSEALED if word == 0 else "has a damaged header")
    starts = range(FIXED.size, FIXED.size + len(SECTIONS) * SECTION.size, SECTION.size)
    spans = [SectionSpan(*SECTION.unpack_from(page, start)) for start in starts]
    header = Header(**dict(zip(_NUMBERS, numbers[1:], strict=True)), sections=spans)
    if whole and not header.whole:
        raise _unusable(_UNSEALED)
    if header.frame_bytes > size:
        raise TransferFailed(f"the frame is truncated: {size} of {header.frame_bytes} bytes are there")
    return header


_UNSEALED = "is not sealed: its writer has not finished or died"


def _unusable(why: str) -> TransferFailed:
    return TransferFailed(f"the frame {why}; take the state from another source")
