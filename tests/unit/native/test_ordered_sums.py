"""Sums whose order is part of their definition: against slow references, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest

from hpresil import native
from hpresil.base.errors import NativeError

SIZES = [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000]
FloatType = Literal["f4", "f8"]
TYPES = {"f4": np.float32, "f8": np.float64}


@pytest.fixture(params=native.cpu_levels())
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def values(count: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers of very different size, so that another order gives another sum."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 6, count)).astype(TYPES[dtype])


def slow_square_sums(numbers: np.ndarray, block: int) -> list[float]:
    sums = []
    for begin in range(0, len(numbers), block):
        lane = [0.0] * 16
        for i, number in enumerate(numbers[begin : begin + block].tolist()):
            lane[i % 16] += number * number
        for width in (8, 4, 2, 1):
            lane = [lane[j] + lane[j + width] for j in range(width)]
        sums.append(lane[0])
    return sums


def hexed(numbers: list[float]) -> list[str]:
    return [number.hex() for number in numbers]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", SIZES)
def test_square_sums_equal_the_slow_reference(count: int, dtype: FloatType, level: str) -> None:
    numbers = values(count, dtype)
    for block in (1, 16, 100, 1024, 16384):
        found = native.square_sums(numbers.ctypes.data, count, block, dtype, level=level)
        assert hexed(found) == hexed(slow_square_sums(numbers, block)), f"block {block}"


@pytest.mark.parametrize("dtype", TYPES)
def test_square_sums_do_not_depend_on_threads_or_alignment(dtype: FloatType, level: str) -> None:
    numbers = values(600_000, dtype)
    expected = native.square_sums(numbers.ctypes.data, 600_000, 16384, dtype, level="portable")
    raw = np.zeros(numbers.nbytes + 64, np.uint8)
    for offset in (numbers.itemsize, 24, 40):
        moved = raw[offset : offset + numbers.nbytes].view(TYPES[dtype])
        moved[:] = numbers
        for threads in (1, 3):
            found = native.square_sums(moved.ctypes.data, 600_000, 16384, dtype, threads, level=level)
            assert hexed(found) == hexed(expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", SIZES)
def test_add_ordered_adds_from_the_left(count: int, dtype: FloatType, level: str) -> None:
    sources = [values(count, dtype, seed) for seed in range(5)]
    expected = sources[0]
    for source in sources[1:]:
        expected = expected + source
    target = np.full(count, np.nan, TYPES[dtype])
    native.add_ordered(target.ctypes.data, [s.ctypes.data for s in sources], count, dtype, level=level)
    assert target.tobytes() == expected.tobytes()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_target_may_be_one_of_the_sources(place: int) -> None:
    sources = [values(300_001, "f4", seed) for seed in range(3)]
    expected = (sources[0] + sources[1]) + sources[2]
    addresses = [s.ctypes.data for s in sources]
    native.add_ordered(addresses[place], addresses, 300_001, "f4", threads=2)
    assert sources[place].tobytes() == expected.tobytes()


def test_one_source_is_copied_exactly() -> None:
    source = np.array([-0.0, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    target = np.zeros(5, np.float32)
    native.add_ordered(target.ctypes.data, [source.ctypes.data], 5, "f4")
    assert target.tobytes() == source.tobytes()


@pytest.fixture
def flushing() -> Iterator[None]:
    """The calling thread flushes denormals to zero."""
    import torch

    assert torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushing")
@pytest.mark.parametrize("threads", [1, 2])
def test_denormals_survive_in_a_thread_that_flushes_them(threads: int, level: str) -> None:
    import torch

    count = 600_000
    tiny = torch.full((count,), 2**-140, dtype=torch.float64).numpy().astype(np.float32).view(np.uint32)
    assert tiny[0] == 0, "the fault did not fire: this thread keeps denormals"
    tiny[:] = 1 << 9  # the bits of 2**-140
    total = np.zeros(count, np.float32)
    address = tiny.ctypes.data
    native.add_ordered(total.ctypes.data, [address, address], count, "f4", threads, level=level)
    assert set(total.view(np.uint32).tolist()) == {1 << 10}
    small = np.full(16, 2.0**-530)
    sums = native.square_sums(small.ctypes.data, 16, 16, "f8", threads, level=level)
    bits = np.array(sums).view(np.uint64)
    assert bits[0] == 1 << 18, "16 times 2**-1060 is 2**-1056, a denormal"


@pytest.mark.usefixtures("flushing")
def test_the_mode_of_the_calling_thread_is_put_back() -> None:
    import torch

    before = torch.tensor([2**-140]) * torch.tensor([1.0])
    native.square_sums(np.ones(16).ctypes.data, 16, 16, "f8")
    after = torch.tensor([2**-140]) * torch.tensor([1.0])
    assert before.item() == after.item() == 0.0


def test_results_do_not_depend_on_who_else_computes() -> None:
    numbers = values(400_000, "f4")
    expected = native.square_sums(numbers.ctypes.data, 400_000, 16384, "f4")
    found: list[list[float]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(native.square_sums(numbers.ctypes.data, 400_000, 16384, "f4", 2))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [expected] * 4


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: native.square_sums(0, 0, 0, "f4"), "block must be at least 1"),
        (lambda: native.square_sums(0, 0, 1, "f2"), "unknown dtype 'f2'"),
        (lambda: native.add_ordered(0, [], 0, "f4"), "at least one source"),
        (lambda: native.add_ordered(8, [4], 0, "f8"), "not a multiple of its elements' size"),
        (lambda: native.square_sums(2, 0, 1, "f4"), "not a multiple of its elements' size"),
    ],
)
def test_bad_arguments_are_refused(call: object, what: str) -> None:
    with pytest.raises(NativeError, match=what):
        call()  # type: ignore[operator]
