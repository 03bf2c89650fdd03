"""How encoded blocks are laid out, what a reader refuses, and which way a block goes.

A header, a table with an entry for each block, then what is stored of the blocks, in their order, without
gaps (docs/formats.md has the bytes). Header and table are covered by checksums of their own, each block by
two: one over what is stored, checked before anything interprets it, and one over what it decodes to.

Everything here is a function of its arguments. Nothing is decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import NamedTuple

from hpresil import native
from hpresil.base.errors import DataError

MAGIC = b"hpresilZ"
FORMAT = 1
MOST_BLOCK_BYTES = 1 << 24
LEAST_GAIN = 0.02
"""A block that shrinks by less than this share is stored as it is: reading it back would cost more."""

_HEADER = struct.Struct("<8sIIQI")
_ENTRY = struct.Struct("<IIIIIBBH")
_SUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _SUM.size
ENTRY_BYTES = _ENTRY.size


class Way(IntFlag):
    """What was done to a block, in this order. None of it: it is stored as it is."""

    DELTA = 1  # exclusive or with the version before
    PLANES = 2  # byte planes
    PACKED = 4  # compressed
    SAME = 8  # equal to the version before; nothing is stored


KNOWN = {
    Way(0),
    Way.SAME,
    Way.PACKED,
    Way.PACKED | Way.PLANES,
    Way.PACKED | Way.DELTA,
    Way.PACKED | Way.PLANES | Way.DELTA,
}


class Entry(NamedTuple):
    """One block: its size, what is stored of it, and the CRC-32C of both and of the block before."""

    nbytes: int
    stored_bytes: int
    crc: int
    stored_crc: int
    previous_crc: int
    element_bytes: int
    way: Way


def choose(nbytes: int, sizes: Mapping[Way, int]) -> Way:
    """Return the way whose result is smallest, given what each would store of ``nbytes`` bytes.

    Nothing (``Way(0)``) unless that saves at least `LEAST_GAIN`. Of equal ones the simpler wins.
    """
    best = min(sizes, key=lambda way: (sizes[way], way), default=Way(0))
    return best if sizes and sizes[best] < nbytes * (1 - LEAST_GAIN) else Way(0)


def pack_head(entries: Sequence[Entry]) -> bytes:
    """Return header and table."""
    table = b"".join(_ENTRY.pack(*entry[:-1], entry.way, 0) for entry in entries)
    nbytes = sum(entry.nbytes for entry in entries)
    header = _HEADER.pack(MAGIC, FORMAT, len(entries), nbytes, native.crc32c(table))
    return header + _SUM.pack(native.crc32c(header)) + table


def _count(data: memoryview, limit_bytes: int) -> tuple[int, int, int]:
    """Return number of blocks, their bytes and the checksum of the table, once the header holds."""
    if len(data) < HEADER_BYTES:
        raise DataError(f"encoded blocks of {len(data)} bytes are truncated: a header has {HEADER_BYTES}")
    magic, version, count, nbytes, table_crc = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DataError("these are no encoded blocks: they begin with something else")
    if native.crc32c(data[: _HEADER.size]) != _SUM.unpack_from(data, _HEADER.size)[0]:
        raise DataError("the header of the encoded blocks is damaged: its checksum does not match")
    if version != FORMAT:
        raise DataError(f"the encoded blocks have format {version}; this hpresil reads format {FORMAT}")
    if nbytes > limit_bytes:
        raise DataError(f"the encoded blocks would take {nbytes} bytes, more than the {limit_bytes} allowed")
    return count, nbytes, table_crc


def read_head(data: memoryview, limit_bytes: int) -> list[Entry]:
    """Return the table of ``data``, all of it checked against the header, the limit and the size of ``data``.

    Raises:
        DataError: It is foreign, truncated, damaged, too long, or claims more than ``limit_bytes``.
    """
    count, nbytes, table_crc = _count(data, limit_bytes)
    end = HEADER_BYTES + count * ENTRY_BYTES
    if len(data) < end:
        raise DataError(f"the encoded blocks are truncated: {len(data)} bytes do not hold a table of {count}")
    if native.crc32c(data[HEADER_BYTES:end]) != table_crc:
        raise DataError("the table of the encoded blocks is damaged: its checksum does not match")
    entries = []
    for number, fields in enumerate(_ENTRY.iter_unpack(data[HEADER_BYTES:end])):
        size, stored, crc, stored_crc, previous_crc, element_bytes, way, reserved = fields
        entry = Entry(size, stored, crc, stored_crc, previous_crc, element_bytes, Way(way))
        if why := _wrong(entry, reserved):
            raise DataError(f"block {number} of the encoded blocks cannot be: {why}")
        entries.append(entry)
    if sum(entry.nbytes for entry in entries) != nbytes:
        raise DataError("the encoded blocks contradict themselves: their sizes do not add up")
    wanted = end + sum(entry.stored_bytes for entry in entries)
    if len(data) != wanted:
        raise DataError(f"the encoded blocks have {len(data)} bytes where their table says {wanted}")
    return entries


def _wrong(entry: Entry, reserved: int) -> str | None:
    if entry.way not in KNOWN or reserved:
        return f"unknown encoding {int(entry.way)}"
    if entry.nbytes > MOST_BLOCK_BYTES:
        return f"{entry.nbytes} bytes are more than a block may have"
    if entry.element_bytes not in (1, 2, 4, 8):
        return f"elements of {entry.element_bytes} bytes"
    stored = {Way(0): entry.nbytes, Way.SAME: 0}.get(entry.way)
    if stored is not None and entry.stored_bytes != stored:
        return f"{entry.stored_bytes} bytes are stored, not {stored}"
    if stored is None and entry.stored_bytes >= entry.nbytes:
        return f"{entry.stored_bytes} bytes stand for {entry.nbytes}"
    return None
