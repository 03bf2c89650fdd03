"""The bytes of a snapshot frame: header, manifest, checksums, tensors. See docs/formats.md.

Pure: nothing here touches memory files or tensors, so the layout of a state is a function of its
names, shapes and values alone. All numbers are little-endian; the constants below are the format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields

import msgspec

from hpresil.base.errors import TransferFailed
from hpresil.snapshot.state import SECTIONS, State
from hpresil.snapshot.values import dtype_name, dtype_named

MAGIC = b"hpresilF"
FORMAT = 3
HEADER_BYTES = 4096
TENSOR_ALIGNMENT = 64
REGION_ALIGNMENT = 4096
SEAL_OFFSET = HEADER_BYTES - 8
SEAL_MARK = 0x5EA1ED01  # low half of a valid seal word; the high half is the header's CRC-32C
SPARE_BYTES = 64 << 10  # room for python values that grow by a few digits from step to step

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


def parse_manifest(data: bytes | memoryview, header: Header) -> Manifest:
    """Return the manifest, every row checked against the header.

    Raises:
        TransferFailed: It contradicts the header or itself.
    """
    try:
        manifest = msgspec.msgpack.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise TransferFailed(f"the frame's manifest cannot be read: {error}") from error
    names = {row.name for row in manifest.tensors}
    if header.sums_bytes != 4 * len(manifest.tensors) or len(names) != len(manifest.tensors):
        raise TransferFailed("the frame's manifest contradicts its header")
    for row in manifest.tensors:
        span = header.sections[row.section] if 0 <= row.section < len(SECTIONS) else SectionSpan(0, 0, 0)
        inside = span.offset <= row.offset and row.offset + row.nbytes <= span.offset + span.nbytes
        size = math.prod(row.shape) * dtype_named(row.dtype).itemsize
        if not inside or row.nbytes != size or row.offset % TENSOR_ALIGNMENT or min(row.shape, default=0) < 0:
            raise TransferFailed(f"the frame's manifest is wrong about tensor {row.name}")
    return manifest


@dataclass(frozen=True)
class Plan:
    """Where everything of one state goes in a frame."""

    manifest: bytes
    rows: list[Row]
    sums_offset: int
    sections: list[SectionSpan]
    frame_bytes: int


def plan(state: State) -> Plan:
    """Return the layout of ``state``: header, manifest, checksums, then tensors, parameters first."""
    placed, spans = _place(state, 0)
    # Offsets in the manifest make its size depend on where the tensors start; leave room for the longest.
    room = len(msgspec.msgpack.encode(Manifest(state.values, placed))) + 9 * len(placed)
    sums_offset = _align(HEADER_BYTES + room, TENSOR_ALIGNMENT)
    start = _align(sums_offset + 4 * len(placed), REGION_ALIGNMENT)
    rows, spans = _place(state, start)
    end = max([start, *(span.offset + span.nbytes for span in spans)])
    manifest = msgspec.msgpack.encode(Manifest(state.values, rows))
    return Plan(manifest, rows, sums_offset, spans, _align(end, REGION_ALIGNMENT))


def header_of(plan: Plan, *, version: int, generation: int = 0) -> Header:
    """Return the header of a whole frame, without the checksums and the count of fills."""
    return Header(
        version=version,
        generation=generation,
        frame_bytes=plan.frame_bytes,
        fills=0,
        manifest_offset=HEADER_BYTES,
        manifest_bytes=len(plan.manifest),
        sums_offset=plan.sums_offset,
        sums_bytes=4 * len(plan.rows),
        manifest_crc=0,
        there=len(plan.rows),
        sections=plan.sections,
    )


def _place(state: State, start: int) -> tuple[list[Row], list[SectionSpan]]:
    rows, spans, offset = [], [], start
    for index, section in enumerate(SECTIONS):
        offset = first = _align(offset, REGION_ALIGNMENT)
        entries = [entry for entry in state.tensors if entry.section == section]
        for entry in entries:
            offset = _align(offset, TENSOR_ALIGNMENT)
            shape = list(entry.shape)
            rows.append(Row(entry.name, dtype_name(entry.dtype), shape, index, offset, entry.nbytes))
            offset += entry.nbytes
        spans.append(SectionSpan(first, offset - first, len(entries)))
    return rows, spans


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
