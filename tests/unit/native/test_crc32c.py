"""CRC-32C and the copy that computes it: against google-crc32c, at every instruction-set level."""

from __future__ import annotations

import random

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpresil import native
from hpresil.base.errors import NativeError

# Around a word, a line, a block of three lanes of each length, a page, and the part of one thread.
EDGES = [1, 8, 64, 1536, 1600, 3072, 4096, 12288, 2 << 20]
SIZES = sorted({0, 7, 63, 3_000_001, *(edge + more for edge in EDGES for more in (-1, 0, 1))})


@pytest.fixture(params=native.cpu_levels())
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_level_is_tested_here() -> None:
    missing = {"portable", "sse4.2", "avx2", "avx512"} - set(native.cpu_levels())
    if missing:
        pytest.skip(f"this CPU cannot run the level {', '.join(sorted(missing))}: compiled, not tested here")


def some_bytes(nbytes: int, seed: int = 0) -> np.ndarray:
    return np.frombuffer(random.Random(seed).randbytes(nbytes), np.uint8).copy()


def aligned(nbytes: int, offset: int) -> np.ndarray:
    """An array of zeros whose address is ``offset`` bytes past a cache line."""
    raw = np.zeros(nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + nbytes]


def oracle(data: np.ndarray) -> int:
    return int(google_crc32c.value(data.tobytes()))


def test_the_check_value_of_the_standard(level: str) -> None:
    assert native.crc32c(b"123456789", level=level) == 0xE3069283


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_checksum_equals_the_oracle(nbytes: int, level: str) -> None:
    data = some_bytes(nbytes)
    assert native.crc32c(data, level=level) == oracle(data)
    assert native.crc32c(data.ctypes.data, nbytes, level=level) == oracle(data)


def test_odd_addresses_give_the_same_checksum(level: str) -> None:
    data = some_bytes(70_000)
    for offset in (1, 3, 8, 31, 63):
        assert native.crc32c(data[offset:], level=level) == oracle(data[offset:])


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_copy_equals_its_source_and_returns_the_oracles_checksum(nbytes: int, level: str) -> None:
    source = some_bytes(nbytes)
    target = aligned(nbytes, 0)
    found = native.copy_crc32c(target.ctypes.data, source.ctypes.data, nbytes, level=level)
    assert found == oracle(source)
    assert np.array_equal(source, target)


@pytest.mark.parametrize("offset", [1, 15, 16, 32, 63])
def test_a_copy_touches_nothing_around_an_unaligned_target(offset: int, level: str) -> None:
    source = some_bytes(100_001)
    around = aligned(100_001 + 64, offset)
    around[:] = 0xAA
    target = around[32:-32]
    found = native.copy_crc32c(target.ctypes.data, source.ctypes.data + 3, 99_998, level=level)
    assert found == oracle(source[3:])
    assert np.array_equal(target[:99_998], source[3:])
    assert (around[:32] == 0xAA).all()
    assert (target[99_998:] == 0xAA).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_pieces_at_once_give_the_checksum_of_each(threads: int, level: str) -> None:
    rng = random.Random(7)
    sizes = [0, 1, 5_000_000, 17, *(rng.randrange(100_000) for _ in range(40))]
    sources = [some_bytes(nbytes, seed=i) for i, nbytes in enumerate(sizes)]
    targets = [np.zeros_like(source) for source in sources]
    pairs = [(t.ctypes.data, s.ctypes.data, s.nbytes) for t, s in zip(targets, sources, strict=True)]
    assert native.copy_many(pairs, threads, level=level) == [oracle(s) for s in sources]
    assert all(np.array_equal(s, t) for s, t in zip(sources, targets, strict=True))


def test_no_pieces_give_no_checksums() -> None:
    assert native.copy_many([], 2) == []


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.binary(max_size=3000), max_size=6))
def test_checksums_chain_and_join_like_the_bytes(pieces: list[bytes]) -> None:
    chained = joined = 0
    for piece in pieces:
        chained = native.crc32c(piece, chained)
        joined = native.crc32c_join(joined, native.crc32c(piece), len(piece))
    assert chained == joined == google_crc32c.value(b"".join(pieces))


def test_joining_knows_lengths_beyond_memory() -> None:
    zeros = native.crc32c(bytes(1 << 20))
    for power in range(20, 40):
        assert native.crc32c_join(0xFFFFFFFF, 0, 1 << power) != 0
        zeros = native.crc32c_join(zeros, zeros, 1 << power)  # 2^40 zeros in the end
    assert zeros == native.crc32c_join(native.crc32c_join(0, 0, 0), zeros, 1 << 40)


def test_views_of_another_layout_are_refused() -> None:
    with pytest.raises((BufferError, ValueError)):
        native.crc32c(np.zeros((8, 8), np.uint8)[:, ::2])


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(NativeError, match=r"unknown CPU level 'mmx'.*portable.*\[csrc/base/cpu.cpp:\d+\]"):
        native.crc32c(b"", level="mmx")


def test_no_threads_are_refused() -> None:
    with pytest.raises(NativeError, match="threads must be at least 1"):
        native.copy_many([], 0)
