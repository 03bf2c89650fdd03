"""CUDA devices on a machine without one, and with."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from hpresil import native
from hpresil.base.errors import NativeError


def test_the_build_says_what_it_is() -> None:
    built = native.built_with()
    assert built["compiler"].split()[0] in ("GNU", "Clang")
    assert bool(built["cuda"]) == bool(built["cuda_architectures"])
    assert native.cpu_level() in native.cpu_levels()


def test_listing_devices_never_fails() -> None:
    for device in native.cuda_devices():
        assert device["memory_bytes"] > 0


def test_every_device_passes_its_self_test() -> None:
    devices = native.cuda_devices()
    if not devices:
        pytest.skip("no CUDA device here: the kernels were compiled but not run")
    for device in devices:
        assert native.cuda_self_test(device["index"])["passed"]


def test_device_calls_without_a_device_say_why() -> None:
    if native.cuda_devices():
        pytest.skip("this machine has a CUDA device")
    why = (
        "cudaErrorInsufficientDriver|cudaErrorNoDevice"
        if native.built_with()["cuda"]
        else "not built with CUDA"
    )
    memory = np.zeros(4096, np.uint8)
    with pytest.raises(NativeError, match=why):
        native.cuda_self_test(0)
    with pytest.raises(NativeError, match=why):
        native.cuda_register(memory.ctypes.data, memory.nbytes)
    with pytest.raises(NativeError, match=why):
        native.cuda_unregister(memory.ctypes.data)
    with pytest.raises(NativeError, match=why):
        native.SnapshotStream(0)
    with pytest.raises(NativeError, match=why):
        native.cuda_block_hashes(memory.ctypes.data, memory.nbytes)
    with pytest.raises(NativeError, match=why):
        native.cuda_xor_delta(*[memory.ctypes.data] * 3, memory.nbytes)
    assert native.cuda_devices() == [], "an earlier failure must not be reported again"


@pytest.mark.parametrize(("level", "status"), [("portable", 0), ("", 0), ("mmx", 1)])
def test_the_environment_chooses_the_cpu_level(level: str, status: int) -> None:
    program = "from hpresil import native; print(native.cpu_level()); native.crc32c(b'x')"
    environment = {**os.environ, "HPRESIL_CPU_LEVEL": level}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    if status:
        assert "unknown CPU level 'mmx'" in done.stderr
    else:
        assert done.stdout.strip() == (level or native.cpu_levels()[-1])
