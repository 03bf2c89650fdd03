"""A state in shared memory that outlives the process that wrote it.

The agent owns the memory files; a source fills one, newcomers map it. A frame is valid exactly if its
seal word is: it is cleared before the first byte changes and written last, and it contains the
checksum of the header, which contains (through the tables of checksums) that of everything else. A
reader checks it before and after copying, so a frame that is being refilled is noticed.

Copying and checking are one pass over memory: `native.copy_many` returns the CRC-32C of what it
copied, straight from live tensors into the frame, and straight from the frame into live tensors.
Tensors that are not contiguous host memory take two passes: checked, then copied by torch.

Thread rule: one writer at a time for each memory file; any number of readers of a sealed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpresil import native
from hpresil.base import spans
from hpresil.base.errors import StateTorn, TransferFailed
from hpresil.snapshot import layout
from hpresil.snapshot.memory import as_tensor, is_plain, map_file, previous_fills, set_seal
from hpresil.snapshot.restore import Restoration, copy_bits
from hpresil.snapshot.state import SECTIONS, Entry, State
from hpresil.snapshot.values import dtype_named

if TYPE_CHECKING:
    from hpresil.snapshot.tracked import Tracked

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
        sums = _copy_in(mapping, plan, state, threads)
        table = sums.tobytes()
        memory[layout.HEADER_BYTES : layout.HEADER_BYTES + len(plan.manifest)] = plan.manifest
        memory[plan.sums_offset : plan.sums_offset + len(table)] = table
        header = _header(plan, sums, version, generation, fills).packed()
        memory[: layout.SEAL_OFFSET] = header
        set_seal(memory, layout.seal_word(native.crc32c(header)))
    return plan.frame_bytes


class Frame:
    """A sealed frame, mapped read-only; its header and manifest are verified, its tensors not yet.

    Attributes:
        version, generation: What was sealed, and when.
        state: The contents; tensors are read-only views into the mapping.

    Raises:
        TransferFailed: The frame is foreign, unsealed, truncated or damaged; nothing was changed.
    """

    def __init__(self, source: native.Mapping | int) -> None:
        self._mapping = map_file(source, writable=False) if isinstance(source, int) else source
        with memoryview(self._mapping) as memory:
            page = bytes(memory[: layout.HEADER_BYTES])
            self._header = header = layout.parse_header(page, self._mapping.nbytes, native.crc32c)
            self._seal = page[layout.SEAL_OFFSET :]
            body = bytes(memory[header.manifest_offset : header.manifest_offset + header.manifest_bytes])
            table = bytes(memory[header.sums_offset : header.sums_offset + header.sums_bytes])
        if native.crc32c(body) != header.manifest_crc:
            raise TransferFailed(f"{self} has a damaged manifest; take the state from another source")
        manifest = layout.parse_manifest(body, header)
        self._rows = manifest.tensors
        self._sums = np.frombuffer(table, "<u4")
        self._check_sums()
        base = as_tensor(self._mapping)
        entries = [Entry(row.name, SECTIONS[row.section], _view(base, row)) for row in manifest.tensors]
        self.state = State(entries, manifest.values, owner=base)

    @property
    def version(self) -> int:
        """The version the frame holds."""
        return self._header.version

    @property
    def generation(self) -> int:
        """The generation in which it was written."""
        return self._header.generation

    def __str__(self) -> str:
        return f"the frame of version {self._header.version} (generation {self._header.generation})"

    def verify(self) -> None:
        """Check every tensor in place.

        Raises:
            TransferFailed: A checksum does not match; the message names the tensor.
        """
        for row, expected in zip(self._rows, self._sums, strict=True):
            self._expect(row.name, native.crc32c(self._mapping.address + row.offset, row.nbytes), expected)
        self.check_seal()

    def copy(self, restoration: Restoration, section: str, threads: int = 1) -> None:
        """Copy one section into the tensors of ``restoration`` (made from ``self.state``), verified.

        Raises:
            StateTorn: A checksum does not match, or the frame was refilled meanwhile.
        """
        fused: list[tuple[int, torch.Tensor]] = []
        others: list[tuple[int, torch.Tensor]] = []
        for index, tensor in restoration.targets(section):
            if self._rows[index].nbytes:
                (fused if is_plain(tensor) else others).append((index, tensor))
        try:
            self._copy_fused(fused, threads)
            self._copy_checked(others)
            self.check_seal()
        except TransferFailed as error:
            raise StateTorn(
                f"{error}; the state of this worker is worth nothing until it is restored"
            ) from error

    def check_seal(self) -> None:
        """Raise TransferFailed if the frame was cleared or refilled since it was opened."""
        with memoryview(self._mapping) as memory:
            if bytes(memory[layout.SEAL_OFFSET : layout.HEADER_BYTES]) != self._seal:
                raise TransferFailed(f"{self} was overwritten while it was read")

    def _copy_fused(self, targets: list[tuple[int, torch.Tensor]], threads: int) -> None:
        start, rows = self._mapping.address, self._rows
        pairs = [(t.data_ptr(), start + rows[i].offset, rows[i].nbytes) for i, t in targets]
        sums = native.copy_many(pairs, threads) if pairs else []
        torch.autograd.graph.increment_version([tensor for _, tensor in targets])
        for (index, _), found in zip(targets, sums, strict=True):
            self._expect(rows[index].name, found, self._sums[index])

    def _copy_checked(self, targets: list[tuple[int, torch.Tensor]]) -> None:
        for index, tensor in targets:
            row = self._rows[index]
            found = native.crc32c(self._mapping.address + row.offset, row.nbytes)
            self._expect(row.name, found, self._sums[index])
            with torch.no_grad():
                copy_bits(tensor, self.state.tensors[index].tensor)

    def _expect(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            raise TransferFailed(
                f"tensor {name} in {self} is damaged (CRC-32C {found:08x} instead of {int(expected):08x})"
            )

    def _check_sums(self) -> None:
        place = 0
        for span, section in zip(self._header.sections, SECTIONS, strict=True):
            part = self._sums[place : place + span.tensors].tobytes()
            if native.crc32c(part) != span.crc:
                raise TransferFailed(f"{self} has damaged checksums of its {section}; take another source")
            place += span.tensors


def read(source: native.Mapping | int) -> tuple[int, State]:
    """Return (version, state) of a frame, every tensor verified; tensors are views into the mapping.

    Raises:
        TransferFailed: The frame is foreign, unsealed, truncated or damaged.
    """
    frame = Frame(source)
    frame.verify()
    return frame.version, frame.state


def restore(
    source: native.Mapping | int, tracked: Tracked, *, version: int | None = None, threads: int = 1
) -> tuple[int, int]:
    """Set ``tracked`` to the state in a frame, every byte verified as it is copied.

    Args:
        source: A mapping of the memory file, or its descriptor (mapped for this call).
        tracked: What to overwrite.
        version: The version expected, if one is.
        threads: How many threads copy.

    Returns:
        The version restored and its size in bytes.

    Raises:
        TransferFailed: The frame is foreign, unsealed, truncated, damaged in its tables, or of
            another version; nothing was changed.
        Refused: The state does not fit; nothing was changed.
        StateTorn: A checksum does not match; what ``tracked`` holds is worth nothing now.
    """
    frame = Frame(source)
    if version not in (None, frame.version):
        raise TransferFailed(f"{frame} was found where version {version} was expected")
    restoration = tracked.prepare(frame.state)
    for section in SECTIONS:
        with spans.span(f"copy {section}"):
            frame.copy(restoration, section, threads)
    restoration.finish()
    return frame.version, frame.state.nbytes


# --------------------------------------------------------------------------- memory


def _view(base: torch.Tensor, row: layout.Row) -> torch.Tensor:
    return base[row.offset : row.offset + row.nbytes].view(dtype_named(row.dtype)).view(row.shape)


def _copy_in(mapping: native.Mapping, plan: layout.Plan, state: State, threads: int) -> Sums:
    """Copy all tensors into their places and return their checksums in manifest order."""
    sums = np.zeros(len(plan.rows), "<u4")
    base = as_tensor(mapping)
    pairs, places = [], []
    for place, (row, entry) in enumerate(zip(plan.rows, _in_order(state), strict=True)):
        tensor = entry.tensor
        if not row.nbytes:
            continue
        if is_plain(tensor):
            pairs.append((mapping.address + row.offset, tensor.data_ptr(), row.nbytes))
            places.append(place)
        else:
            copy_bits(_view(base, row), tensor)
            sums[place] = native.crc32c(mapping.address + row.offset, row.nbytes)
    if pairs:
        sums[places] = native.copy_many(pairs, threads)
    return sums


def _in_order(state: State) -> list[Entry]:
    return [entry for section in SECTIONS for entry in state.tensors if entry.section == section]


def _header(plan: layout.Plan, sums: Sums, version: int, generation: int, fills: int) -> layout.Header:
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
        sections=sections,
    )
