"""Blocks of state made smaller without loss: delta against the version before, byte planes, Zstandard.

Each block is tried on a sample, in every way that could help; the best one is taken for all of it
(`codec_format.choose`), and what does not shrink is stored as it is. A block that equals the version before
costs an entry of the table. Dense training changes every element in every step: there a delta saves little,
and docs/design/codec.md says how much; it pays for frozen weights, adapters and embedding tables.

A reader trusts nothing: sizes are checked against the caller's limit and against what is there before
memory is taken, checksums before anything is decompressed, and no more is decompressed than the table says.

Needs ``pip install 'hpresil[compress]'`` (`zstandard`). Functions are thread safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Buffer

from hpresil import native
from hpresil.base.errors import ConfigError, DataError
from hpresil.checkpoint.codec_format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    MOST_BLOCK_BYTES,
    Entry,
    Way,
    choose,
    pack_head,
    read_head,
)

LEVEL = 1
SAMPLES, SAMPLE_BYTES = 4, 4096
"""A block is judged by this many pieces of this size, spread evenly."""

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


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

    def one(block: Block, old: Buffer | None) -> tuple[Entry, Buffer]:
        return _encode_block(
            zstd, _bytes(block.data), block.element_bytes, None if old is None else _bytes(old)
        )

    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(one, blocks, before))
    return b"".join([pack_head([entry for entry, _ in made]), *(stored for _, stored in made)])


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

    def one(number: int, entry: Entry, offset: int, old: Buffer | None) -> bytearray:
        stored = view[offset : offset + entry.stored_bytes]
        return _decode_block(zstd, f"block {number}", entry, stored, old)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(entries)), entries, offsets, before))


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


def _prepared(way: Way, data: Bytes, element_bytes: int, old: Bytes | None) -> Bytes:
    """Return ``data`` as a delta and as byte planes, as far as ``way`` says so."""
    if Way.DELTA in way and old is not None:
        changed = np.empty_like(data)
        native.xor_delta(changed.ctypes.data, data.ctypes.data, old.ctypes.data, data.nbytes)
        data = changed
    if Way.PLANES in way:
        apart = np.empty_like(data)
        native.shuffle(apart.ctypes.data, data.ctypes.data, data.nbytes, element_bytes)
        data = apart
    return data


def _sample(data: Bytes, element_bytes: int) -> Bytes:
    """Return a few pieces of ``data``, each beginning with an element; all of it where it is small."""
    if data.nbytes <= SAMPLES * SAMPLE_BYTES:
        return data
    step = (data.nbytes - SAMPLE_BYTES) // (SAMPLES - 1) // element_bytes * element_bytes
    return np.concatenate([data[at * step : at * step + SAMPLE_BYTES] for at in range(SAMPLES)])


def _encode_block(zstd: Any, data: Bytes, element_bytes: int, old: Bytes | None) -> tuple[Entry, Buffer]:
    if old is not None and old.nbytes != data.nbytes:
        old = None
    crc = native.crc32c(data.data)
    previous_crc = native.crc32c(old.data) if old is not None else 0
    if old is not None and data.nbytes and np.array_equal(data, old):
        return Entry(data.nbytes, 0, crc, 0, previous_crc, element_bytes, Way.SAME), b""
    compressor = zstd.ZstdCompressor(level=LEVEL)
    few, few_old = _sample(data, element_bytes), None if old is None else _sample(old, element_bytes)
    ways = [Way.PACKED] + ([Way.PACKED | Way.PLANES] if element_bytes > 1 else [])
    ways += [way | Way.DELTA for way in ways] if old is not None else []
    tried = {way: len(compressor.compress(_prepared(way, few, element_bytes, few_old))) for way in ways}
    way = choose(few.nbytes, tried)
    stored: Buffer = data.data
    if way:
        packed = compressor.compress(_prepared(way, data, element_bytes, old))
        way = choose(data.nbytes, {way: len(packed)})
        stored = packed if way else data.data
    used_crc = previous_crc if Way.DELTA in way else 0
    nbytes, stored_crc = memoryview(stored).nbytes, native.crc32c(stored)
    return Entry(data.nbytes, nbytes, crc, stored_crc, used_crc, element_bytes, way), stored


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
