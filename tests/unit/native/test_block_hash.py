"""The block hash at every level against its definition, and whether it mixes well."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import slow_hashes
from hpresil import native
from hpresil.base.errors import NativeError

BLOCK = native.hash_block_bytes()
# Around a word, a stripe, a segment and a block; several blocks.
EDGES = [8, 256, 16384, BLOCK]
SIZES = sorted(
    {0, 1, 3 * 16384 + 300, 2 * BLOCK + 77, *(edge + more for edge in EDGES for more in (-1, 0, 1))}
)


@pytest.fixture(params=native.cpu_levels())
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def some_bytes(nbytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(nbytes)


def one(data: bytes | np.ndarray) -> int:
    (found,) = native.block_hashes(data)
    return found


FIXED = 0xC3D399B1AEA79B2F
EXPECTED = {nbytes: slow_hashes.block_hashes(some_bytes(nbytes)) for nbytes in SIZES}


def test_a_fixed_value_that_no_later_version_may_change(level: str) -> None:
    assert native.block_hashes(b"123456789", level=level) == [slow_hashes.block_hash(b"123456789")]
    assert native.block_hashes(b"123456789", level=level) == [FIXED]


@pytest.mark.parametrize("nbytes", SIZES)
def test_every_level_gives_the_value_of_the_definition(nbytes: int, level: str) -> None:
    data = some_bytes(nbytes)
    assert native.block_hashes(data, level=level) == EXPECTED[nbytes]
    held = np.frombuffer(data, np.uint8)
    if nbytes:
        assert native.block_hashes(held.ctypes.data, nbytes, level=level) == EXPECTED[nbytes]


def test_any_address_gives_the_same_value(level: str) -> None:
    data = some_bytes(20_001)
    for offset in (1, 2, 3, 4, 7, 8, 31, 63):
        moved = np.zeros(len(data) + 64, np.uint8)
        moved[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        found = native.block_hashes(moved[offset : offset + len(data)], level=level)
        assert found == slow_hashes.block_hashes(data)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_values(threads: int) -> None:
    data = some_bytes(2 * BLOCK + 77)
    assert native.block_hashes(data, threads) == EXPECTED[2 * BLOCK + 77]


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=1000))
def test_any_bytes_give_the_value_of_the_definition(data: bytes) -> None:
    assert native.block_hashes(data) == slow_hashes.block_hashes(data)


def test_a_block_has_the_same_hash_wherever_it_lies() -> None:
    data = some_bytes(BLOCK)
    assert native.block_hashes(data * 3) == [one(data)] * 3


def test_lengths_of_zeros_all_differ() -> None:
    zeros = bytes(BLOCK)
    lengths = [*range(1, 1100), *range(16384 - 300, 16384 + 300), BLOCK - 1, BLOCK]
    assert len({one(zeros[:length]) for length in lengths}) == len(set(lengths))


def test_one_changed_bit_changes_about_half_of_the_hash() -> None:
    data = bytearray(some_bytes(3 * 16384 + 300))
    clean = one(data)
    counts, per_bit = [], [0] * 64
    rng = random.Random(1)
    places = [rng.randrange(len(data) * 8) for _ in range(2000)]
    for place in places:
        data[place // 8] ^= 1 << place % 8
        changed = one(data) ^ clean
        data[place // 8] ^= 1 << place % 8
        counts.append(changed.bit_count())
        for bit in range(64):
            per_bit[bit] += changed >> bit & 1
    assert abs(sum(counts) / len(counts) - 32) < 1
    assert min(counts) >= 8
    assert all(0.4 < count / len(places) < 0.6 for count in per_bit)


def test_sparse_blocks_do_not_collide() -> None:
    """One or two bits in a block of zeros: what a multiplication by zero would lose."""
    data = np.zeros(4096, np.uint8)
    seen = {one(data)}
    for place in range(0, 4096 * 8):
        data[place // 8] = 1 << place % 8
        seen.add(one(data))
        data[place // 8] = 0
    assert len(seen) == 1 + 4096 * 8


def test_words_that_make_a_factor_zero_still_count() -> None:
    """A word whose lower half equals its key's has a product of zero whatever the upper half is."""
    key = slow_hashes.KEYS[0]
    seen = set()
    for upper in range(2000):
        word = upper << 32 | key & 0xFFFFFFFF
        seen.add(one(word.to_bytes(8, "little") + bytes(248)))
    assert len(seen) == 2000


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000), a=st.integers(0, 7), b=st.integers(0, 7), unit=st.sampled_from([8, 256, 16384])
)
def test_exchanged_words_stripes_and_segments_are_noticed(seed: int, a: int, b: int, unit: int) -> None:
    data = bytearray(some_bytes(8 * unit, seed))
    before = one(data)
    data[a * unit : (a + 1) * unit], data[b * unit : (b + 1) * unit] = (
        data[b * unit : (b + 1) * unit],
        data[a * unit : (a + 1) * unit],
    )
    assert (one(data) == before) == (a == b)


def test_no_threads_are_refused() -> None:
    with pytest.raises(NativeError, match="threads must be at least 1"):
        native.block_hashes(b"x", 0)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), seed=st.integers(0, 2**32 - 1))
def test_crc32c_equals_its_definition(data: bytes, seed: int) -> None:
    assert native.crc32c(data, seed) == slow_hashes.crc32c(data, seed)
