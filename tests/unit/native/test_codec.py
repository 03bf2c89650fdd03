"""Delta and byte planes through the bindings: against NumPy, at every level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpresil import native
from hpresil.base.errors import NativeError


def planes_of(data: np.ndarray, size: int) -> np.ndarray:
    whole = len(data) // size * size
    return np.concatenate([data[:whole].reshape(-1, size).T.reshape(-1), data[whole:]])


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=2000),
    size=st.sampled_from([1, 2, 4, 8]),
    level=st.sampled_from(native.cpu_levels()),
    offset=st.integers(0, 9),
)
def test_byte_planes_are_a_transpose_and_come_back(data: bytes, size: int, level: str, offset: int) -> None:
    around = np.zeros(len(data) + 20, np.uint8)
    held = around[offset : offset + len(data)]
    held[:] = np.frombuffer(data, np.uint8)
    apart, back = np.zeros_like(held), np.zeros_like(held)
    native.shuffle(apart.ctypes.data, held.ctypes.data, held.nbytes, size, level=level)
    assert np.array_equal(apart, planes_of(held, size))
    native.unshuffle(back.ctypes.data, apart.ctypes.data, held.nbytes, size, level=level)
    assert np.array_equal(back, held)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=2000), level=st.sampled_from(native.cpu_levels()), seed=st.integers(0, 99))
def test_a_delta_is_the_exclusive_or_and_its_own_inverse(data: bytes, level: str, seed: int) -> None:
    new = np.frombuffer(data, np.uint8)
    old = np.random.default_rng(seed).integers(0, 256, len(data), np.uint8)
    delta = np.zeros_like(old)
    native.xor_delta(delta.ctypes.data, new.ctypes.data, old.ctypes.data, len(data), level=level)
    assert np.array_equal(delta, new ^ old)
    native.xor_delta(delta.ctypes.data, delta.ctypes.data, old.ctypes.data, len(data), level=level)
    assert np.array_equal(delta, new)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_a_large_delta(threads: int) -> None:
    rng = np.random.default_rng(1)
    new, old = (rng.integers(0, 256, 5_000_001, np.uint8) for _ in range(2))
    delta = np.zeros_like(new)
    native.xor_delta(delta.ctypes.data, new.ctypes.data, old.ctypes.data, new.nbytes, threads)
    assert np.array_equal(delta, new ^ old)


def test_what_cannot_be_done_in_place_is_refused() -> None:
    data = np.zeros(100, np.uint8)
    at = data.ctypes.data
    with pytest.raises(NativeError, match="not done in place"):
        native.shuffle(at, at + 10, 50, 4)
    with pytest.raises(NativeError, match="overlaps a source"):
        native.xor_delta(at + 1, at, at, 50)
    with pytest.raises(NativeError, match="1, 2, 4 or 8 bytes"):
        native.shuffle(at, at + 50, 50, 3)
