"""The bytes of a valid frame with any contents, for those who move frames and never look into tensors."""

from __future__ import annotations

import os

import msgspec
import numpy as np

from hpresil import native
from hpresil.snapshot import preface

LEAST = 16384


def frame_of(
    nbytes: int, *, version: int = 7, generation: int = 2, tensors: int = 16, seed: int | None = None
) -> bytes:
    """Return a frame of ``nbytes`` (at least `LEAST`), three quarters of whose tensors are parameters.

    With a ``seed`` it is the same in every process.
    """
    sums_offset, first = 8192, 12288
    each = (nbytes - first) // tensors // 64 * 64
    sizes = [each] * (tensors - 1) + [nbytes - first - each * (tensors - 1)]
    parameters = tensors * 3 // 4
    rows = [
        preface.Row(str(i), "uint8", [size], 0 if i < parameters else 3, first + each * i, size)
        for i, size in enumerate(sizes)
    ]
    content = (
        os.urandom(nbytes - first) if seed is None else np.random.default_rng(seed).bytes(nbytes - first)
    )
    sums = np.array(
        [native.crc32c(content[row.offset - first :][: row.nbytes]) for row in rows], "<u4"
    ).tobytes()
    manifest = msgspec.msgpack.encode(preface.Manifest(b"", rows))
    cut, end = first + each * parameters, nbytes
    spans = [
        preface.SectionSpan(first, cut - first, parameters, native.crc32c(sums[: 4 * parameters])),
        preface.SectionSpan(cut, 0, 0, 0),
        preface.SectionSpan(cut, 0, 0, 0),
        preface.SectionSpan(cut, end - cut, tensors - parameters, native.crc32c(sums[4 * parameters :])),
    ]
    page = preface.Header(
        version=version,
        generation=generation,
        frame_bytes=nbytes,
        fills=1,
        manifest_offset=preface.HEADER_BYTES,
        manifest_bytes=len(manifest),
        sums_offset=sums_offset,
        sums_bytes=len(sums),
        manifest_crc=native.crc32c(manifest),
        there=tensors,
        sections=spans,
    ).packed()
    head = page + preface.seal_word(native.crc32c(page)).to_bytes(8, "little")
    body = manifest.ljust(sums_offset - preface.HEADER_BYTES, b"\0") + sums.ljust(first - sums_offset, b"\0")
    return head + body + content


def known_frame(nbytes: int, version: int) -> bytes:
    """Return the frame of a version that is the same wherever it is made."""
    return frame_of(nbytes, version=version, generation=version, seed=version)
