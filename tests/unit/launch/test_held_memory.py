"""What a device holder holds, as a worker sees it: a tensor, an address."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from device_holders import (
    HOST,
    UNIT,
    at,
)
from hpresil import native
from hpresil.base.errors import (
    NativeError,
)

# ------------------------------------------------------------------ what is mapped


def test_a_tensor_over_the_memory_keeps_it_mapped_and_can_be_a_parameter(path, holder):
    with at(path) as place:
        place.allocate("state", 400)
        memory = place.open("state")
        address = memory.address
        parameter = torch.nn.Parameter(torch.zeros(100))
        parameter.data = torch.frombuffer(memory, dtype=torch.float32)
        del memory
        with torch.no_grad():
            parameter.fill_(1.5)
        assert (np.frombuffer(place.open("state"), np.float32) == 1.5).all()
        assert mapped(address)
        del parameter
        assert not mapped(address)


def mapped(address):
    return f"{address:x}-" in Path("/proc/self/maps").read_text()


def test_host_memory_has_no_cuda_address_and_a_device_that_is_not_there_is_told():
    held = native.HeldMemory(HOST, 100)
    fd = held.export_fd()
    memory = native.MappedDeviceMemory(HOST, fd, 100)
    assert held.allocated_bytes == UNIT
    assert len(memoryview(memory)) == memory.nbytes == 100
    assert not hasattr(memory, "__cuda_array_interface__")
    assert not os.get_inheritable(fd)
    os.close(fd)
    if not native.cuda_devices():
        why = "no NVIDIA driver here" if native.built_with()["cuda"] else "not built with CUDA"
        with pytest.raises(NativeError, match=f"{why}|CUDA_ERROR_NO_DEVICE"):
            native.HeldMemory(0, 100)
