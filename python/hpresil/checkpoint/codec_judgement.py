"""Which way blocks go: a sample is tried in every way that could help.

The problem: trying a block of a few KiB in four ways takes several times as long as packing it. The design:
a large block is judged by itself, by 16 KiB of it. Small ones are judged together, up to `RUN_BLOCKS` of one
kind: elements of one size, with or without a version before. A judgement holds for what is like its sample;
who packs a block sees whether it is, and has it judged by itself if not.

What is judged together depends on the blocks alone, so equal input is packed equally by any number of
threads. Functions are thread safe; a compressor is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hpresil import native
from hpresil.checkpoint.codec_format import Way, choose

SAMPLES, SAMPLE_BYTES = 4, 4096
"""A block is judged by this many pieces of this size, spread evenly; several by as many bytes together."""
SMALL_BYTES, RUN_BLOCKS = 1 << 18, 16
"""Blocks up to this size are judged together, at most so many."""
SLACK = 3 / 16
"""By which share of itself a block may shrink less than its run before it is judged by itself, as long as it
shrinks."""

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Piece(NamedTuple):
    """A block, and the version before if that has the same size."""

    number: int
    data: Bytes
    element_bytes: int
    old: Bytes | None


class Verdict(NamedTuple):
    """The best way for a sample, and the share of its bytes that is left then."""

    way: Way
    share: float


def prepared(way: Way, data: Bytes, element_bytes: int, old: Bytes | None) -> Bytes:
    """Return ``data`` as a delta against ``old`` and as byte planes, as far as ``way`` says so.

    ``data`` itself, or new memory of the same size; nothing is written to what was given.
    """
    if Way.DELTA in way and old is not None:
        changed = np.empty_like(data)
        native.xor_delta(changed.ctypes.data, data.ctypes.data, old.ctypes.data, data.nbytes)
        data = changed
    if Way.PLANES in way:
        apart = np.empty_like(data)
        native.shuffle(apart.ctypes.data, data.ctypes.data, data.nbytes, element_bytes)
        data = apart
    return data


def runs(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Return what is judged together: each large block by itself, small ones of one kind in their order."""
    runs: list[list[Piece]] = []
    last: dict[tuple[int, bool], list[Piece]] = {}
    for piece in pieces:
        kind = (piece.element_bytes, piece.old is not None)
        if piece.data.nbytes > SMALL_BYTES:
            runs.append([piece])
        elif kind in last and len(last[kind]) < RUN_BLOCKS:
            last[kind].append(piece)
        else:
            last[kind] = [piece]
            runs.append(last[kind])
    return runs


def _sample(data: Bytes, element_bytes: int, most_bytes: int) -> Bytes:
    """Return pieces of ``data``, each of whole elements; of all of it where it is small."""
    if data.nbytes <= most_bytes:
        return data[: data.nbytes // element_bytes * element_bytes]
    count = max(1, most_bytes // SAMPLE_BYTES)
    nbytes = most_bytes // count // element_bytes * element_bytes
    step = (data.nbytes - nbytes) // max(1, count - 1) // element_bytes * element_bytes
    first = 0 if count > 1 else step // 2 // element_bytes * element_bytes
    starts = [first + at * step for at in range(count)]
    return np.concatenate([data[start : start + nbytes] for start in starts])


def judge(compressor: Any, pieces: Sequence[Piece]) -> Verdict:
    """Try a sample of blocks of one kind (`runs`) in every way that could help.

    ``compressor``: has ``compress(bytes) -> bytes``. Costs up to four compressions of 16 KiB.
    """
    most, size = SAMPLES * SAMPLE_BYTES // len(pieces), pieces[0].element_bytes
    few = np.concatenate([_sample(piece.data, size, most) for piece in pieces])
    olds = [_sample(piece.old, size, most) for piece in pieces if piece.old is not None]
    old = np.concatenate(olds) if olds else None
    ways = [Way.PACKED] + ([Way.PACKED | Way.PLANES] if size > 1 else [])
    ways += [way | Way.DELTA for way in ways] if old is not None else []
    tried = {way: len(compressor.compress(prepared(way, few, size, old))) for way in ways}
    way = choose(few.nbytes, tried)
    return Verdict(way, tried[way] / few.nbytes if way else 1.0)
