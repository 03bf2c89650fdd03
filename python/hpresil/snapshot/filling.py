"""The writer's side of a frame: a state goes into shared memory section by section.

After each section the frame is sealed for what is there so far, so that a newcomer can read the
parameters while the source still copies the rest. `frame` is the reader's side; it says what is valid.

Thread rule: one writer at a time for each memory file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpresil import native
from hpresil.base.errors import TransferFailed
from hpresil.snapshot import layout
from hpresil.snapshot.memory import as_tensor, is_plain, map_file, previous_fills, set_seal, view_of
from hpresil.snapshot.restore import copy_bits
from hpresil.snapshot.state import SECTIONS, State

Sums = np.ndarray[Any, np.dtype[np.uint32]]


def size(state: State) -> int:
    """Return the bytes a memory file should have to hold ``state``, with some room for growth.

    Optimizer state appears with the first step: ask again after it.
    """
    return layout.plan(state).frame_bytes + layout.SPARE_BYTES


def fill(
    target: native.Mapping | int, state: State, *, version: int, generation: int = 0, threads: int = 1
) -> int:
    """Copy ``state`` into a memory file and seal it.

    Args:
        target: A writable mapping of the file, or its descriptor (mapped for this call).
        state: What to copy; must not change meanwhile.
        version: The version it is.
        generation: The generation it was written in.
        threads: How many threads copy.

    Returns:
        The bytes used, from the start of the file.

    Raises:
        TransferFailed: The file is too small; nothing was changed.
    """
    mapping = map_file(target, writable=True) if isinstance(target, int) else target
    plan = layout.plan(state)
    if plan.frame_bytes > mapping.nbytes:
        raise TransferFailed(
            f"version {version} needs a frame of {plan.frame_bytes} bytes, this one has {mapping.nbytes}"
        )
    with memoryview(mapping) as memory:
        fills = previous_fills(memory) + 1
        set_seal(memory, 0)
        memory[layout.HEADER_BYTES : layout.HEADER_BYTES + len(plan.manifest)] = plan.manifest
        sums = np.zeros(len(plan.rows), "<u4")
        for place, section in enumerate(SECTIONS):
            _copy_in(mapping, plan, state, section, sums, threads)
            set_seal(memory, 0)  # while the tables change, nothing is valid
            table = sums.tobytes()
            memory[plan.sums_offset : plan.sums_offset + len(table)] = table
            header = _header(plan, sums, place + 1, version, generation, fills).packed()
            memory[: layout.SEAL_OFFSET] = header
            set_seal(memory, layout.seal_word(native.crc32c(header)))
    return plan.frame_bytes


def _copy_in(
    mapping: native.Mapping, plan: layout.Plan, state: State, section: str, sums: Sums, threads: int
) -> None:
    """Copy the tensors of one section into their places, their checksums into ``sums`` (manifest order)."""
    base = as_tensor(mapping)
    pairs, places = [], []
    for place, (row, entry) in enumerate(zip(plan.rows, state.tensors, strict=True)):
        if entry.section != section or not row.nbytes:
            continue
        if is_plain(entry.tensor):
            pairs.append((mapping.address + row.offset, entry.tensor.data_ptr(), row.nbytes))
            places.append(place)
        else:
            copy_bits(view_of(base, row), entry.tensor)
            sums[place] = native.crc32c(mapping.address + row.offset, row.nbytes)
    if pairs:
        sums[places] = native.copy_many(pairs, threads)


def _header(
    plan: layout.Plan, sums: Sums, complete: int, version: int, generation: int, fills: int
) -> layout.Header:
    sections, place = [], 0
    for span in plan.sections:
        crc = native.crc32c(sums[place : place + span.tensors].tobytes())
        sections.append(layout.SectionSpan(span.offset, span.nbytes, span.tensors, crc))
        place += span.tensors
    return layout.Header(
        version=version,
        generation=generation,
        frame_bytes=plan.frame_bytes,
        fills=fills,
        manifest_offset=layout.HEADER_BYTES,
        manifest_bytes=len(plan.manifest),
        sums_offset=plan.sums_offset,
        sums_bytes=4 * len(plan.rows),
        manifest_crc=native.crc32c(plan.manifest),
        complete=complete,
        sections=sections,
    )
