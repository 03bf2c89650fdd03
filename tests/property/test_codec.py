"""Encoded blocks come back bit for bit, and whatever is done to them is noticed before it is believed."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpresil import native
from hpresil.base.errors import DataError
from hpresil.checkpoint import codec_format
from hpresil.checkpoint.codec import Block, decode, encode
from hpresil.checkpoint.codec_format import ENTRY_BYTES, HEADER_BYTES, KNOWN, Entry, Way, choose, pack_head

zstandard = pytest.importorskip(
    "zstandard", reason="compression is an extra: pip install 'hpresil[compress]'"
)

LIMIT = 1 << 26


def contents(kind: str, nbytes: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.bytes(nbytes)
    if kind == "zeros":
        return bytes(nbytes)
    return rng.normal(0, 0.02, nbytes // 4 + 1).astype(np.float32).tobytes()[:nbytes]  # weights


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from(["random", "zeros", "weights"]),
        st.one_of(st.integers(0, 300), st.sampled_from([32767, 32768, 32769, 70_001])),
        st.sampled_from([1, 2, 4, 8]),
        st.sampled_from(["none", "same", "near", "other", "shorter"]),
    ),
    max_size=5,
)


def before(data: bytes, how: str, seed: int) -> bytes | None:
    if how == "none":
        return None
    if how == "same":
        return data
    if how == "shorter":
        return data[: len(data) // 2]
    if how == "other":
        return np.random.default_rng(seed + 1).bytes(len(data))
    near = bytearray(data)
    near[:: max(1, len(data) // 7)] = bytes(len(near[:: max(1, len(data) // 7)]))
    return bytes(near)


def built(plan: list[tuple[str, int, int, str]]) -> tuple[list[Block], list[bytes | None]]:
    blocks, old = [], []
    for seed, (kind, nbytes, size, how) in enumerate(plan):
        data = contents(kind, nbytes, seed)
        blocks.append(Block(data, size))
        old.append(before(data, how, seed))
    return blocks, old


@settings(max_examples=150, deadline=None)
@given(plan=BLOCKS, threads=st.sampled_from([1, 2]))
def test_blocks_come_back_bit_for_bit(plan: list[tuple[str, int, int, str]], threads: int) -> None:
    blocks, old = built(plan)
    encoded = encode(blocks, old, threads=threads)
    total = sum(len(block.data) for block in blocks)
    assert len(encoded) <= HEADER_BYTES + len(blocks) * ENTRY_BYTES + total, "it never grows beyond its table"
    found = decode(encoded, old, limit_bytes=total, threads=threads)
    assert [bytes(one) for one in found] == [block.data for block in blocks]


@settings(max_examples=200, deadline=None)
@given(plan=BLOCKS, data=st.data())
def test_a_changed_byte_anywhere_is_refused(
    plan: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    blocks, old = built(plan)
    encoded = bytearray(encode(blocks, old))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataError):
        decode(encoded, old, limit_bytes=LIMIT)


@settings(max_examples=150, deadline=None)
@given(plan=BLOCKS, data=st.data())
def test_a_truncated_or_longer_input_is_refused(
    plan: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    blocks, old = built(plan)
    encoded = encode(blocks, old)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DataError):
        decode(encoded[:cut], old, limit_bytes=LIMIT)
    with pytest.raises(DataError, match="where their table says"):
        decode(encoded + b"x", old, limit_bytes=LIMIT)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_with_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(DataError):
        decode(data, limit_bytes=LIMIT)


ENTRIES = st.builds(
    Entry,
    nbytes=st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1)),
    stored_bytes=st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1)),
    crc=st.integers(0, 2**32 - 1),
    stored_crc=st.just(0),
    previous_crc=st.just(0),
    element_bytes=st.integers(0, 255),
    way=st.integers(0, 255).map(Way),
)


@settings(max_examples=300, deadline=None)
@given(entries=st.lists(ENTRIES, max_size=4), stored=st.binary(max_size=200))
def test_a_forged_table_with_right_checksums_is_refused_or_consistent(
    entries: list[Entry], stored: bytes
) -> None:
    """What a reader is protected by is not the checksums: whoever forges a table can compute them."""
    at, forged = 0, []
    for entry in entries:
        part = stored[at : at + entry.stored_bytes]
        at += entry.stored_bytes
        forged.append(entry._replace(stored_crc=native.crc32c(part)))
    try:
        found = decode(pack_head(forged) + stored, limit_bytes=1000)
    except DataError:
        return
    assert sum(map(len, found)) <= 1000
    assert [native.crc32c(one) for one in found] == [entry.crc for entry in entries]


def forged(packed: bytes, nbytes: int, way: Way = Way.PACKED) -> bytes:
    entry = Entry(nbytes, len(packed), 0, native.crc32c(packed), 0, 1, way)
    return pack_head([entry]) + packed


def test_a_decompression_bomb_is_refused_without_taking_the_memory() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    assert len(bomb) < 1 << 15
    del_bound = 1 << 22
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="claims to hold 268435456 bytes, not 1048576"):
            decode(forged(bomb, 1 << 20), limit_bytes=LIMIT)
        with pytest.raises(DataError, match="more than a block may have"):
            decode(forged(bomb, 1 << 28), limit_bytes=1 << 30)
        with pytest.raises(DataError, match="more than the 1000 allowed"):
            decode(forged(bomb, 1 << 20), limit_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < del_bound
    finally:
        tracemalloc.stop()


def test_a_frame_that_does_not_say_its_size_is_refused() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(DataError, match=r"claims to hold \d+ bytes, not 1000"):
        decode(forged(silent, 1000), limit_bytes=LIMIT)


def test_garbage_behind_right_checksums_cannot_be_decompressed() -> None:
    with pytest.raises(DataError, match="cannot be decompressed"):
        decode(forged(b"garbage!", 1000), limit_bytes=LIMIT)


def test_a_delta_needs_the_very_version_it_was_made_with() -> None:
    old, new = contents("weights", 50_000, 1), bytearray(contents("weights", 50_000, 1))
    new[7] ^= 1
    encoded = encode([Block(new, 4)], [old])
    assert len(encoded) < 1000
    with pytest.raises(DataError, match="which is not given"):
        decode(encoded, limit_bytes=LIMIT)
    with pytest.raises(DataError, match="another version"):
        decode(encoded, [bytes(new)], limit_bytes=LIMIT)
    assert decode(encoded, [old], limit_bytes=LIMIT) == [new]


def test_another_format_is_named() -> None:
    header = bytearray(encode([]))
    header[8] = 2
    header[-4:] = struct.pack("<I", native.crc32c(bytes(header[:-4])))
    with pytest.raises(DataError, match="format 2; this hpresil reads format 1"):
        decode(header, limit_bytes=LIMIT)


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    noise = contents("random", 1 << 20, 3)
    encoded = encode([Block(noise, 4)], [contents("random", 1 << 20, 4)])
    assert len(encoded) == HEADER_BYTES + ENTRY_BYTES + len(noise)
    assert encoded.endswith(noise)


def test_an_unchanged_block_costs_its_entry_only() -> None:
    noise = contents("random", 1 << 20, 3)
    assert len(encode([Block(noise, 4)], [noise])) == HEADER_BYTES + ENTRY_BYTES


def test_a_sparse_change_costs_little() -> None:
    old = contents("random", 1 << 20, 3)
    new = bytearray(old)
    new[100_000:100_100] = bytes(100)
    assert len(encode([Block(new, 4)], [old])) < 1000


@settings(max_examples=200, deadline=None)
@given(
    nbytes=st.integers(1, 10**6),
    sizes=st.dictionaries(st.sampled_from(sorted(KNOWN - {Way(0)})), st.integers(1, 2 * 10**6)),
)
def test_the_way_taken_is_the_smallest_or_none(nbytes: int, sizes: dict[Way, int]) -> None:
    way = choose(nbytes, sizes)
    least = min(sizes.values(), default=nbytes)
    if least < nbytes * (1 - codec_format.LEAST_GAIN):
        assert sizes[way] == least
        assert all(way <= other for other in sizes if sizes[other] == least)
    else:
        assert way == Way(0)


def test_blocks_beyond_the_limits_are_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="at most 16 MiB"):
        encode([Block(bytes((1 << 24) + 1), 4)])
    with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes"):
        encode([Block(b"abc", 3)])
    with pytest.raises(ValueError, match="2 previous blocks do not go with 1 blocks"):
        encode([Block(b"abc", 1)], [None, None])


def test_encoding_is_deterministic() -> None:
    blocks = [Block(contents("weights", 100_000, seed), 4) for seed in range(4)]
    runs = [encode(blocks, threads=threads) for threads in (1, 1, 2)]
    assert all(one == other for one, other in pairwise(runs))
