"""A state in shared memory that outlives the process that wrote it; here the reader's side.

The agent owns the memory files; a source fills one (`filling`), newcomers map it. A frame is valid
exactly if its seal word is: it is cleared before the first byte changes, and it contains the checksum of
the header, which contains (through the tables of checksums) that of everything else. A source seals anew
after each piece, parameters first, and the header says how many tensors are there; only a frame with all of
them is one that can be kept. A reader checks the seal before and after copying, so a frame that is being
refilled is noticed; it may follow a source that is still filling, one piece behind.

Copying and checking are one pass over memory: `native.copy_many` returns the CRC-32C of what it
copied, straight from live tensors into the frame, and straight from the frame into live tensors.
Tensors that are not contiguous host memory take two passes: checked, then copied by torch.

Thread rule: any number of readers of a sealed frame; one thread at a time for each `Frame`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from hpresil import native
from hpresil.base import spans
from hpresil.base.errors import StateTorn, TransferFailed
from hpresil.snapshot import layout, preface
from hpresil.snapshot.memory import as_tensor, is_plain, map_file, view_of
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.restore import Restoration, copy_bits
from hpresil.snapshot.state import Entry, State

if TYPE_CHECKING:
    from hpresil.snapshot.arrays import Arrays, ArrayTargets
    from hpresil.snapshot.tracked import Tracked

PIECE_BYTES = 32 << 20  # about 3 ms: how long a copy cannot be given up
POLL_S = 0.0005
Target = tuple[int, torch.Tensor]


class Frame:
    """A frame, mapped read-only; its header and manifest are verified, its tensors not yet.

    Args:
        source: A mapping of the memory file, or its descriptor.
        whole: Whether all tensors must be there; not in a frame that is being filled.

    Attributes:
        version, generation: What was sealed, and when.
        state: The contents; tensors are read-only views into the mapping.

    Raises:
        TransferFailed: The frame is foreign, unsealed, truncated or damaged; nothing was changed.
    """

    def __init__(self, source: native.Mapping | int, *, whole: bool = True) -> None:
        self._mapping = map_file(source, writable=False) if isinstance(source, int) else source
        page = self._page()
        self._take(page, preface.parse_header(page, self._mapping.nbytes, native.crc32c, whole=whole))
        header = self._header
        with memoryview(self._mapping) as memory:
            body = bytes(memory[header.manifest_offset : header.manifest_offset + header.manifest_bytes])
        if native.crc32c(body) != header.manifest_crc:
            raise TransferFailed(f"{self} has a damaged manifest; take the state from another source")
        manifest = layout.parse_manifest(body, header)
        self._rows = manifest.tensors
        base = as_tensor(self._mapping)
        entries = [Entry(row.name, SECTIONS[row.section], view_of(base, row)) for row in manifest.tensors]
        self.state = State(entries, manifest.values, owner=base)

    @property
    def version(self) -> int:
        """The version the frame holds."""
        return self._header.version

    @property
    def generation(self) -> int:
        """The generation in which it was written."""
        return self._header.generation

    @property
    def there(self) -> int:
        """How many tensors were there when it was looked at last."""
        return self._header.there

    def __str__(self) -> str:
        return f"the frame of version {self._header.version} (generation {self._header.generation})"

    def check_version(self, version: int | None) -> None:
        """Raise TransferFailed if a version is expected and the frame holds another one."""
        if version not in (None, self.version):
            raise TransferFailed(f"{self} was found where version {version} was expected")

    def look(self) -> int:
        """Look again how many tensors are there.

        Raises:
            TransferFailed: The frame was filled anew since it was opened, or is damaged.
        """
        if not self._header.whole:
            page = self._page()
            try:
                header = preface.parse_header(page, self._mapping.nbytes, native.crc32c, whole=False)
            except TransferFailed:
                return self.there  # its writer is about to seal it anew, or begins another fill
            if header.fills != self._header.fills or header.generation != self._header.generation:
                raise TransferFailed(f"{self} was overwritten while it was read")
            if header.there > self.there:
                with suppress(SealMoved):
                    self._take(page, header)
        return self.there

    def verify(self) -> None:
        """Check every tensor in place.

        Raises:
            TransferFailed: A checksum does not match; the message names the tensor.
        """
        for row, expected in zip(self._rows, self._sums, strict=True):
            self._expect(row.name, native.crc32c(self._mapping.address + row.offset, row.nbytes), expected)
        self.check_seal()

    def copy(
        self,
        restoration: Restoration | ArrayTargets,
        section: str,
        threads: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy one section into the tensors of ``restoration`` (made from ``self.state``), verified.

        In a frame that is being filled it follows its writer: it waits for what is not there yet.
        Torch's version counters do not change; see `Restoration.count_change`.

        Args:
            restoration: Where to.
            section: One of `SECTIONS`.
            threads: How many threads copy.
            between: Called before each piece and while it waits; what it raises ends the copy.

        Raises:
            StateTorn: A checksum does not match, or the frame was refilled meanwhile.
        """
        waiting = [(i, tensor) for i, tensor in restoration.targets(section) if self._rows[i].nbytes]
        try:
            with spans.span(f"copy {section}"):
                while waiting:
                    between()
                    piece = self._next_piece(waiting)
                    if piece:
                        self._copy_piece(piece, threads)
                        del waiting[: len(piece)]
                    else:
                        time.sleep(POLL_S)
            self.check_seal()
        except TransferFailed as error:
            raise StateTorn(
                f"{error}; the state of this worker is worth nothing until it is restored"
            ) from error

    def check_seal(self) -> None:
        """Raise TransferFailed if the frame was cleared or refilled since it was opened.

        One that is still being filled changes its seal: there only a refill that is sealed is seen. What
        was copied has the right checksums in either case.
        """
        self.look()
        if self._header.whole and self._page()[preface.SEAL_OFFSET :] != self._seal:
            raise TransferFailed(f"{self} was overwritten while it was read")

    def _page(self) -> bytes:
        with memoryview(self._mapping) as memory:
            return bytes(memory[: preface.HEADER_BYTES])

    def _take(self, page: bytes, header: preface.Header) -> None:
        """Take in a header, with the checksums it vouches for."""
        with memoryview(self._mapping) as memory:
            table = bytes(memory[header.sums_offset : header.sums_offset + header.sums_bytes])
        if not header.whole and self._page() != page:
            raise SealMoved("the frame is just being sealed for one more piece")
        sums, place = np.frombuffer(table, "<u4"), 0
        for span, section in zip(header.sections, SECTIONS, strict=True):
            part = sums[place : place + span.tensors].tobytes()
            if native.crc32c(part) != span.crc:
                what = f"the frame of version {header.version} (generation {header.generation})"
                raise TransferFailed(f"{what} has damaged checksums of its {section}; take another source")
            place += span.tensors
        self._header, self._seal, self._sums = header, page[preface.SEAL_OFFSET :], sums

    def _next_piece(self, waiting: list[Target]) -> list[Target]:
        """Return the first of ``waiting`` that are there, some `PIECE_BYTES` of them."""
        there = self.look()
        piece: list[Target] = []
        nbytes = 0
        for index, tensor in waiting:
            if index >= there or nbytes >= PIECE_BYTES:
                break
            piece.append((index, tensor))
            nbytes += self._rows[index].nbytes
        return piece

    def _copy_piece(self, piece: list[Target], threads: int) -> None:
        self._copy_fused([target for target in piece if is_plain(target[1])], threads)
        self._copy_checked([target for target in piece if not is_plain(target[1])])

    def _copy_fused(self, targets: list[Target], threads: int) -> None:
        start, rows = self._mapping.address, self._rows
        pairs = [(t.data_ptr(), start + rows[i].offset, rows[i].nbytes) for i, t in targets]
        sums = native.copy_many(pairs, threads) if pairs else []
        for (index, _), found in zip(targets, sums, strict=True):
            self._expect(rows[index].name, found, self._sums[index])

    def _copy_checked(self, targets: list[Target]) -> None:
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


class SealMoved(TransferFailed):
    """A frame that is being filled was looked at while its seal was moved: look again."""


def holds(source: native.Mapping, version: int, generation: int) -> bool:
    """Whether a frame has this version, or is being filled with it, written in this generation."""
    with memoryview(source) as memory:
        page = bytes(memory[: preface.HEADER_BYTES])
    try:
        header = preface.parse_header(page, source.nbytes, native.crc32c, whole=False)
    except TransferFailed:
        return False
    return (header.version, header.generation) == (version, generation)


def read(source: native.Mapping | int) -> tuple[int, State]:
    """Return (version, state) of a frame, every tensor verified; tensors are views into the mapping.

    Raises:
        TransferFailed: The frame is foreign, unsealed, truncated or damaged.
    """
    frame = Frame(source)
    frame.verify()
    return frame.version, frame.state


def restore(
    source: native.Mapping | int, tracked: Tracked | Arrays, *, version: int | None = None, threads: int = 1
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
    frame.check_version(version)
    restoration = tracked.prepare(frame.state)
    restoration.count_change()
    for section in SECTIONS:
        frame.copy(restoration, section, threads)
    restoration.finish()
    return frame.version, frame.state.nbytes
