"""The device snapshot on a device: what it copies, what waits for it, and one graph for many steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hpresil import native

SIZES = [100, 4, 65536, 0, 3 << 20, 1, 40000, (1 << 20) + 5, 7, *(1000 + 13 * i for i in range(300))]
WAIT_S = 30.0


class Frame:
    """Host memory in a memory file, and tensors on the device with their places in it."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.tensors = [
            torch.randint(0, 256, (nbytes,), dtype=torch.uint8, generator=random).cuda() for nbytes in SIZES
        ]
        self.offsets = [0]
        for nbytes in SIZES:
            self.offsets.append((self.offsets[-1] + nbytes + 63) // 64 * 64)
        self.memory = native.Mapping(native.memfd("frame", self.offsets[-1]), self.offsets[-1], populate=True)
        torch.cuda.synchronize()

    def copies(self) -> list[tuple[int, int, int]]:
        return [
            (self.memory.address + at, tensor.data_ptr(), tensor.nbytes)
            for at, tensor in zip(self.offsets, self.tensors, strict=False)
        ]

    def found(self, i: int) -> np.ndarray:
        return np.frombuffer(self.memory, np.uint8)[self.offsets[i] : self.offsets[i] + SIZES[i]].copy()

    def holds(self, tensors: list[torch.Tensor]) -> bool:
        return all(np.array_equal(self.found(i), one.cpu().numpy()) for i, one in enumerate(tensors))


@pytest.fixture
def frame() -> Frame:
    return Frame()


@pytest.fixture
def stream(frame: Frame) -> Iterator[native.SnapshotStream]:
    made = native.SnapshotStream(0)
    assert made.register_memory(frame.memory.address, frame.memory.nbytes)
    yield made
    made.wait(WAIT_S)


def current() -> int:
    return torch.cuda.current_stream().cuda_stream


def test_everything_is_copied_and_hashed_by_one_graph(frame: Frame, stream: native.SnapshotStream) -> None:
    for step in range(3):
        stream.set_copies(frame.copies())
        for tensor in frame.tensors:
            tensor += step
        stream.begin(current())
        assert stream.wait(WAIT_S)
        assert stream.complete
        assert frame.holds(frame.tensors)
    assert stream.hashes() == [native.block_hashes(one.cpu().numpy()) for one in frame.tensors]
    assert (stream.captures, stream.uses_graph, stream.notes) == (1, True, [])


def test_another_address_is_captured_again(frame: Frame, stream: native.SnapshotStream) -> None:
    stream.set_copies(frame.copies())
    frame.tensors[4] = frame.tensors[4] + 1
    stream.set_copies(frame.copies())
    stream.begin(current())
    assert stream.wait(WAIT_S)
    assert stream.captures == 2
    assert frame.holds(frame.tensors)


def test_the_next_optimizer_step_waits_for_the_copy(frame: Frame, stream: native.SnapshotStream) -> None:
    stream.set_copies(frame.copies())
    before = [tensor.clone() for tensor in frame.tensors]
    busy = torch.zeros(1 << 28, dtype=torch.uint8, device="cuda")
    for _ in range(20):  # so that the copy has not even begun when the step is queued
        busy += 1
    stream.begin(current())
    stream.gate(current())
    for tensor in frame.tensors:
        tensor += 1
    assert stream.wait(WAIT_S)
    torch.cuda.synchronize()
    assert frame.holds(before)


def test_memory_that_is_not_registered_is_copied_to_without_a_graph(frame: Frame) -> None:
    stream = native.SnapshotStream(0)
    stream.set_copies(frame.copies())
    stream.begin(current())
    assert stream.wait(WAIT_S)
    assert frame.holds(frame.tensors)
    assert not stream.uses_graph
    assert any("not registered" in note for note in stream.notes)
