"""The bytes of a snapshot frame: header, manifest, checksums, tensors. See docs/formats.md.

Pure: nothing here touches memory files or tensors, so the layout of a state is a function of its
names, shapes and values alone. What it says of itself is in `preface`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from hpresil.base.errors import TransferFailed
from hpresil.snapshot.preface import HEADER_BYTES, SECTIONS, Header, Manifest, Row, SectionSpan
from hpresil.snapshot.state import State
from hpresil.snapshot.values import dtype_name, dtype_named

TENSOR_ALIGNMENT = 64
REGION_ALIGNMENT = 4096
SPARE_BYTES = 64 << 10  # room for python values that grow by a few digits from step to step


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
    placed, spans = _place(state)
    # Offsets in the manifest make its size depend on where the tensors start; leave room for the longest.
    room = len(msgspec.msgpack.encode(Manifest(state.values, placed))) + 9 * len(placed)
    sums_offset = _align(HEADER_BYTES + room, TENSOR_ALIGNMENT)
    start = _align(sums_offset + 4 * len(placed), REGION_ALIGNMENT)
    rows = [msgspec.structs.replace(row, offset=start + row.offset) for row in placed]
    sections = [SectionSpan(start + span.offset, span.nbytes, span.tensors) for span in spans]
    end = max([start, *(span.offset + span.nbytes for span in sections)])
    manifest = msgspec.msgpack.encode(Manifest(state.values, rows))
    return Plan(manifest, rows, sums_offset, sections, _align(end, REGION_ALIGNMENT))


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


def _place(state: State) -> tuple[list[Row], list[SectionSpan]]:
    """Return where everything is, counted from where the tensors start."""
    rows: list[Row] = []
    spans, offset = [], 0
    for index, section in enumerate(SECTIONS):
        offset = first = _align(offset, REGION_ALIGNMENT)
        count = len(rows)
        for entry in state.tensors:
            if entry.section == section:
                offset = _align(offset, TENSOR_ALIGNMENT)
                name, dtype, nbytes = entry.name, dtype_name(entry.dtype), entry.nbytes
                rows.append(Row(name, dtype, list(entry.shape), index, offset, nbytes))
                offset += nbytes
        spans.append(SectionSpan(first, offset - first, len(rows) - count))
    return rows, spans


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
