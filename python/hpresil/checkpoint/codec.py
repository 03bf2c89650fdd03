"""Blocks of state made smaller without loss: delta against the version before, byte planes, Zstandard.

Each block goes the way that was best for a sample of it, or of blocks like it (`codec_judgement`); what does
not shrink is stored as it is. A block that equals the version before costs an entry of the table. Dense
training changes every element in every step: there a delta saves little, and docs/design/codec.md says how
much; it pays for frozen weights, adapters and embedding tables.

A reader trusts nothing: sizes are checked against the caller's limit and against what is there before
memory is taken, checksums before anything is decompressed, and no more is decompressed than the table says.

Needs ``pip install 'hpresil[compress]'`` (`zstandard`). Functions are thread safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
from typing_extensions import Buffer

from hpresil import native
from hpresil.base.errors import ConfigError, DataError
from hpresil.checkpoint.codec_format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    LEAST_GAIN,
    MOST_BLOCK_BYTES,
    Entry,
    Way,
    choose,
    pack_head,
    read_head,
)
from hpresil.checkpoint.codec_judgement import SLACK, Bytes, Piece, Verdict, judge, prepared, runs

LEVEL = 1
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class Block(NamedTuple):
    """At most 16 MiB of contiguous memory, and the bytes of one of its elements (1, 2, 4 or 8)."""

    data: Buffer
    element_bytes: int


def encode(
    blocks: Sequence[Block], previous: Sequence[Buffer | None] | None = None, *, threads: int = 1
) -> bytes:
    """Return the blocks, encoded.

    Args:
        blocks: What to encode.
        previous: For each block the same block of the version before, or None. One of another size
            is not used. To decode, the same has to be given again.
        threads: How many threads share the blocks.

    Raises:
        ConfigError: `zstandard` is not installed.
        ValueError: A block is too large, has elements of another size, or ``previous`` another length.
    """
    zstd = _library()
    before = _aligned(previous, len(blocks))
    for block in blocks:
        if memoryview(block.data).nbytes > MOST_BLOCK_BYTES or block.element_bytes not in (1, 2, 4, 8):
            raise ValueError("a block has at most 16 MiB, of elements of 1, 2, 4 or 8 bytes")

    made: dict[int, tuple[Entry, Buffer]] = {}
    pieces = [_piece(*numbered) for numbered in zip(range(len(blocks)), blocks, before, strict=True)]
    for part in _spread(lambda run: _encode_run(zstd, run), runs(pieces), threads):
        made.update(part)
    ordered = [made[number] for number in range(len(blocks))]
    return b"".join([pack_head([entry for entry, _ in ordered]), *(stored for _, stored in ordered)])


def decode(
    data: Buffer,
    previous: Sequence[Buffer | None] | None = None,
    *,
    limit_bytes: int,
    threads: int = 1,
) -> list[bytearray]:
    """Return the blocks that `encode` was given.

    Memory: what is returned, at most ``limit_bytes``, and up to three blocks a thread.

    Raises:
        ConfigError: `zstandard` is not installed.
        DataError: ``data`` is foreign, truncated, damaged or larger than allowed, or ``previous`` is not
            what it was encoded with.
    """
    view = memoryview(data).cast("B")
    entries = read_head(view, limit_bytes)
    zstd = _library()
    before = _aligned(previous, len(entries))
    begin = HEADER_BYTES + len(entries) * ENTRY_BYTES
    offsets = accumulate((entry.stored_bytes for entry in entries[:-1]), initial=begin)

    def one(work: tuple[int, Entry, int, Buffer | None]) -> bytearray:
        number, entry, offset, old = work
        stored = view[offset : offset + entry.stored_bytes]
        return _decode_block(zstd, f"block {number}", entry, stored, old)

    return _spread(one, list(zip(range(len(entries)), entries, offsets, before, strict=False)), threads)


def _spread(work: Callable[[_Given], _Made], items: Sequence[_Given], threads: int) -> list[_Made]:
    """Return what ``work`` makes of each item; one thread is the caller's, as starting another takes time."""
    if threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _library() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigError(f"compression needs pip install 'hpresil[compress]': {error}") from error
    return zstandard


def _aligned(previous: Sequence[Buffer | None] | None, count: int) -> Sequence[Buffer | None]:
    if previous is not None and len(previous) != count:
        raise ValueError(f"{len(previous)} previous blocks do not go with {count} blocks")
    return [None] * count if previous is None else previous


def _bytes(data: Buffer) -> Bytes:
    return np.frombuffer(memoryview(data).cast("B"), np.uint8)


def _piece(number: int, block: Block, old: Buffer | None) -> Piece:
    data = _bytes(block.data)
    before = None if old is None else _bytes(old)
    usable = before is not None and before.nbytes == data.nbytes
    return Piece(number, data, block.element_bytes, before if usable else None)


def _encode_run(zstd: Any, run: Sequence[Piece]) -> dict[int, tuple[Entry, Buffer]]:
    """Return entries and what is stored, by the blocks' numbers."""
    made: dict[int, tuple[Entry, Buffer]] = {}
    changed: list[tuple[Piece, int, int]] = []
    for piece in run:
        data, old = piece.data, piece.old
        crc, previous_crc = native.crc32c(data.data), native.crc32c(old.data) if old is not None else 0
        if old is not None and data.nbytes and np.array_equal(data, old):
            same = Entry(data.nbytes, 0, crc, 0, previous_crc, piece.element_bytes, Way.SAME)
            made[piece.number] = same, b""
        else:
            changed.append((piece, crc, previous_crc))
    if not changed:
        return made
    compressor = zstd.ZstdCompressor(level=LEVEL)
    verdict = judge(compressor, [piece for piece, _, _ in changed])
    for piece, crc, previous_crc in changed:
        way, stored = _pack(compressor, piece, verdict, alone=len(changed) == 1)
        nbytes, used_crc = piece.data.nbytes, previous_crc if Way.DELTA in way else 0
        sizes = nbytes, memoryview(stored).nbytes
        entry = Entry(*sizes, crc, native.crc32c(stored), used_crc, piece.element_bytes, way)
        made[piece.number] = entry, stored
    return made


def _pack(compressor: Any, piece: Piece, verdict: Verdict, *, alone: bool) -> tuple[Way, Buffer]:
    """Return the way the block goes, and what is stored of it."""

    def packed(way: Way) -> bytes:
        made: bytes = compressor.compress(prepared(way, piece.data, piece.element_bytes, piece.old))
        return made

    nbytes, way = piece.data.nbytes, verdict.way
    if not way:
        return way, piece.data.data
    found = {way: packed(way)}
    expected = min(verdict.share + SLACK, 1 - LEAST_GAIN)
    if not alone and len(found[way]) > expected * nbytes:  # it is unlike the others
        other = judge(compressor, [piece]).way
        if other and other != way:
            found[other] = packed(other)
    way = choose(nbytes, {way: len(stored) for way, stored in found.items()})
    return way, found[way] if way else piece.data.data


def _decode_block(zstd: Any, name: str, entry: Entry, stored: memoryview, old: Buffer | None) -> bytearray:
    if native.crc32c(stored) != entry.stored_crc:
        raise DataError(f"{name} is damaged: the checksum of what is stored does not match")
    before = _previous(name, entry, old) if entry.way & (Way.DELTA | Way.SAME) else None
    result = bytearray(entry.nbytes)
    out = np.frombuffer(result, np.uint8)
    if entry.way == Way.SAME and before is not None:
        out[:] = before
    elif not entry.way:
        result[:] = stored
    else:
        held = _bytes(_unpacked(zstd, name, entry, stored))
        if Way.PLANES in entry.way:
            native.unshuffle(out.ctypes.data, held.ctypes.data, entry.nbytes, entry.element_bytes)
            held = out
        if Way.DELTA in entry.way and before is not None:
            native.xor_delta(out.ctypes.data, held.ctypes.data, before.ctypes.data, entry.nbytes)
            held = out
        if held is not out:
            out[:] = held
    if native.crc32c(out.data) != entry.crc:
        raise DataError(f"{name} does not decode to what was encoded: its checksum does not match")
    return result


def _previous(name: str, entry: Entry, old: Buffer | None) -> Bytes:
    if old is None:
        raise DataError(f"{name} was encoded against the version before, which is not given")
    before = _bytes(old)
    if before.nbytes != entry.nbytes or native.crc32c(before.data) != entry.previous_crc:
        raise DataError(f"{name} was encoded against another version than the one that is given")
    return before


def _unpacked(zstd: Any, name: str, entry: Entry, stored: memoryview) -> bytes:
    """Decompress exactly ``entry.nbytes``; the frame's own claim is checked before memory is taken for it."""
    try:
        claimed = zstd.get_frame_parameters(stored).content_size
        if claimed != entry.nbytes:
            raise DataError(f"{name} claims to hold {claimed} bytes, not {entry.nbytes}")
        decompressor = zstd.ZstdDecompressor(max_window_size=MOST_BLOCK_BYTES)
        unpacked: bytes = decompressor.decompress(stored, allow_extra_data=False)
    except zstd.ZstdError as error:
        raise DataError(f"{name} cannot be decompressed: {error}") from error
    return unpacked
