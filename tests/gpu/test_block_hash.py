"""The block hash, the delta and the byte planes on the device: the values of the host, bit for bit."""

from __future__ import annotations

import pytest
import torch

from hpresil import native
from hpresil.base.errors import NativeError

BLOCK = native.hash_block_bytes()
EDGES = [8, 256, 16384, BLOCK]
SIZES = sorted(
    {0, 1, 2 * BLOCK + 77, 50 * BLOCK + 3, *(edge + more for edge in EDGES for more in (-1, 0, 1))}
)


def some_bytes(nbytes: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (nbytes,), dtype=torch.uint8, generator=random)


@pytest.mark.parametrize("nbytes", SIZES)
def test_the_device_gives_the_hosts_hashes(nbytes: int) -> None:
    data = some_bytes(nbytes)
    there = data.cuda()
    torch.cuda.synchronize()
    assert native.cuda_block_hashes(there.data_ptr(), nbytes) == native.block_hashes(data.numpy())


@pytest.mark.parametrize("offset", [1, 2, 4, 6, 8, 255])
def test_any_address_gives_the_same_hashes(offset: int) -> None:
    data = some_bytes(BLOCK + 1000)
    there = data.cuda()
    torch.cuda.synchronize()
    part = data[offset:].contiguous()
    found = native.cuda_block_hashes(there.data_ptr() + offset, len(part))
    assert found == native.block_hashes(part.numpy())


def test_hashes_follow_what_is_queued_on_the_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        data = torch.zeros(1 << 26, dtype=torch.uint8, device="cuda")
        for _ in range(20):
            data += 3
    found = native.cuda_block_hashes(data.data_ptr(), data.nbytes, stream.cuda_stream)
    assert found == native.block_hashes(torch.full((1 << 26,), 60, dtype=torch.uint8).numpy())


@pytest.mark.parametrize("nbytes", [0, 1, 15, 16, 17, 100_003])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_byte_planes_are_those_of_the_host_and_come_back(nbytes: int, size: int) -> None:
    data = some_bytes(nbytes)
    expected = torch.empty_like(data)
    native.shuffle(expected.data_ptr(), data.data_ptr(), nbytes, size)
    there = data.cuda()
    apart, back = torch.empty_like(there), torch.empty_like(there)
    torch.cuda.synchronize()
    native.cuda_shuffle(apart.data_ptr(), there.data_ptr(), nbytes, size)
    native.cuda_shuffle(back.data_ptr(), apart.data_ptr(), nbytes, size, back=True)
    torch.cuda.synchronize()
    assert torch.equal(apart.cpu(), expected)
    assert torch.equal(back.cpu(), data)


@pytest.mark.parametrize("offset", [0, 1, 16])
def test_a_delta_is_that_of_the_host(offset: int) -> None:
    new, old = some_bytes(1 << 20, 1), some_bytes(1 << 20, 2)
    here, there = new.cuda(), old.cuda()
    torch.cuda.synchronize()
    nbytes = new.nbytes - offset
    native.cuda_xor_delta(
        here.data_ptr() + offset, here.data_ptr() + offset, there.data_ptr() + offset, nbytes
    )
    torch.cuda.synchronize()
    assert torch.equal(here.cpu()[offset:], new[offset:] ^ old[offset:])
    assert torch.equal(here.cpu()[:offset], new[:offset])


def test_bad_arguments_are_refused_before_the_device_sees_them() -> None:
    data = torch.zeros(100, dtype=torch.uint8, device="cuda")
    with pytest.raises(NativeError, match="not done in place"):
        native.cuda_shuffle(data.data_ptr(), data.data_ptr(), 100, 4)
