"""The writer's side of a frame: a state goes into shared memory piece by piece.

After each piece the frame is sealed for what is there so far, so that a newcomer can read one piece while the
source copies the next. `frame` is the reader's side; it says what is valid.

Thread rule: one writer at a time for each memory file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hpresil import native
from hpresil.base.errors import TransferFailed
from hpresil.snapshot import layout, preface
from hpresil.snapshot.memory import as_tensor, is_plain, map_file, previous_fills, set_seal, view_of
from hpresil.snapshot.restore import copy_bits
from hpresil.snapshot.state import State

PIECE_BYTES = 16 << 20  # about 2 ms: a newcomer is so far behind its source
Sums = np.ndarray[Any, np.dtype[np.uint32]]


def size(state: State, plan: layout.Plan | None = None) -> int:
    """Return the bytes a memory file should have to hold ``state``, with some room for growth.

    Optimizer state appears with the first step: ask again after it.
    """
    return (plan or layout.plan(state)).frame_bytes + layout.SPARE_BYTES


def fill(
    target: native.Mapping | int,
    state: State,
    *,
    version: int,
    generation: int = 0,
    threads: int = 1,
    plan: layout.Plan | None = None,
    on_rest: Callable[[], None] = lambda: None,
) -> int:
    """Copy ``state`` into a memory file and seal it.

    Args:
        target: A writable mapping of the file, or its descriptor (mapped for this call).
        state: What to copy; must not change meanwhile.
        version: The version it is.
        generation: The generation it was written in.
        threads: How many threads copy.
        plan: The layout of ``state``, if it is known already.
        on_rest: Called when everything is there that a gradient needs.

    Returns:
        The bytes used, from the start of the file.

    Raises:
        TransferFailed: The file is too small; nothing was changed.
    """
    mapping = map_file(target, writable=True) if isinstance(target, int) else target
    plan = plan or layout.plan(state)
    if plan.frame_bytes > mapping.nbytes:
        raise TransferFailed(
            f"version {version} needs a frame of {plan.frame_bytes} bytes, this one has {mapping.nbytes}"
        )
    with memoryview(mapping) as memory:
        fills = previous_fills(memory) + 1
        set_seal(memory, 0)
        memory[preface.HEADER_BYTES : preface.HEADER_BYTES + len(plan.manifest)] = plan.manifest
        sums = np.zeros(len(plan.rows), "<u4")
        rest = sum(span.tensors for span in plan.sections[:-1])
        for piece in _pieces(plan.rows):
            if piece.start == rest and piece:
                on_rest()
            _copy_in(mapping, plan, state, piece, sums, threads)
            set_seal(memory, 0)  # while the tables change, nothing is valid
            table = sums.tobytes()
            memory[plan.sums_offset : plan.sums_offset + len(table)] = table
            header = _header(plan, sums, piece.stop, version, generation, fills).packed()
            memory[: preface.SEAL_OFFSET] = header
            set_seal(memory, preface.seal_word(native.crc32c(header)))
    return plan.frame_bytes


def _pieces(rows: list[preface.Row]) -> Iterator[range]:
    """Yield the places of the tensors that are copied together: none at first, then parts of one section."""
    start = nbytes = 0
    yield range(0)
    for place, row in enumerate(rows):
        nbytes += row.nbytes
        last = place + 1 == len(rows) or rows[place + 1].section != row.section
        if last or nbytes >= PIECE_BYTES:
            yield range(start, place + 1)
            start, nbytes = place + 1, 0


def _copy_in(
    mapping: native.Mapping, plan: layout.Plan, state: State, piece: range, sums: Sums, threads: int
) -> None:
    """Copy the tensors of one piece into their places, their checksums into ``sums`` (manifest order)."""
    base = as_tensor(mapping)
    pairs, places = [], []
    for place in piece:
        row, tensor = plan.rows[place], state.tensors[place].tensor
        if not row.nbytes:
            continue
        if is_plain(tensor):
            pairs.append((mapping.address + row.offset, tensor.data_ptr(), row.nbytes))
            places.append(place)
        else:
            copy_bits(view_of(base, row), tensor)
            sums[place] = native.crc32c(mapping.address + row.offset, row.nbytes)
    if pairs:
        sums[places] = native.copy_many(pairs, threads)


def _header(
    plan: layout.Plan, sums: Sums, there: int, version: int, generation: int, fills: int
) -> preface.Header:
    sections, place = [], 0
    for span in plan.sections:
        crc = native.crc32c(sums[place : place + span.tensors].tobytes())
        sections.append(preface.SectionSpan(span.offset, span.nbytes, span.tensors, crc))
        place += span.tensors
    return preface.Header(
        version=version,
        generation=generation,
        frame_bytes=plan.frame_bytes,
        fills=fills,
        manifest_offset=preface.HEADER_BYTES,
        manifest_bytes=len(plan.manifest),
        sums_offset=plan.sums_offset,
        sums_bytes=4 * len(plan.rows),
        manifest_crc=native.crc32c(plan.manifest),
        there=there,
        sections=sections,
    )
