"""A frame that comes from another node: newcomers here may read what has come of it.

Its first page is known before anything else; tensors come in its order. Whenever more of them are whole, the
page is written with how many there are, as a source on this node does after each piece it has filled, so
readers find nothing new. The page as it was sent, with everything there, is written last.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from bisect import bisect_right

import msgspec

from hpresil import native
from hpresil.snapshot import preface


class Arriving:
    """The first page of one frame on its way into a memory file. Not valid until something is there.

    Thread rule: nobody else writes to the file's first page meanwhile.

    Args:
        fd: The memory file.
        head: The first page, as it was sent.

    Raises:
        TransferFailed: That is no first page of a whole frame.
    """

    def __init__(self, fd: int, head: bytes) -> None:
        self._fd, self._head = fd, head
        size = os.fstat(fd).st_size
        self._header = preface.parse_header(head, size, native.crc32c)
        self._ends: list[int] | None = None
        self._there = 0
        os.pwrite(fd, bytes(preface.HEADER_BYTES), 0)

    def came(self, nbytes: int) -> None:
        """The first ``nbytes`` of the frame are there, without a gap."""
        tables = self._header.sums_offset + self._header.sums_bytes
        if self._ends is None and nbytes >= tables:
            self._ends = self._read_ends()
        there = bisect_right(self._ends or [], nbytes)
        if there > self._there:
            self._there = there
            page = dataclasses.replace(self._header, there=there).packed()
            self._seal(page, struct.pack("<Q", preface.seal_word(native.crc32c(page))))

    def whole(self) -> None:
        """Everything is there."""
        self._seal(self._head[: preface.SEAL_OFFSET], self._head[preface.SEAL_OFFSET :])

    def given_up(self) -> None:
        """No more will come: what is there is no frame."""
        os.pwrite(self._fd, bytes(preface.HEADER_BYTES), 0)

    def _read_ends(self) -> list[int]:
        """Return where each tensor ends; nothing of a manifest that is damaged, as readers will find out."""
        body = os.pread(self._fd, self._header.manifest_bytes, self._header.manifest_offset)
        if native.crc32c(body) != self._header.manifest_crc:
            return []
        try:
            rows = msgspec.msgpack.decode(body, type=preface.Manifest).tensors
        except msgspec.MsgspecError:
            return []
        ends = [row.offset + row.nbytes for row in rows]
        return ends if ends == sorted(ends) else []

    def _seal(self, page: bytes, seal: bytes) -> None:
        os.pwrite(self._fd, bytes(len(seal)), preface.SEAL_OFFSET)
        os.pwrite(self._fd, page, 0)
        os.pwrite(self._fd, seal, preface.SEAL_OFFSET)
