"""Device memory that outlives a killed worker, on a device: the same bytes without a copy, seen by torch."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpresil import native
from hpresil.base.errors import NativeError, TransferFailed
from hpresil.launch import device_holder
from hpresil.launch.run_directory import SocketDirectory
from hpresil.snapshot import HeldPlace

NUMBERS = 3_000_001
WAIT_S = 120.0
WRITER = f"""
import os, signal, sys
from pathlib import Path
import torch
from hpresil.snapshot import HeldPlace

place = HeldPlace(Path(sys.argv[1]), place=0, generation=1, device=0)
memory = {{"state": place.allocate("state", 4 * {NUMBERS})}}
view = torch.as_tensor(memory["state"], device="cuda").view(torch.float32)
view.copy_(torch.arange({NUMBERS}, device="cuda"))
place.seal(5, memory, stream=torch.cuda.current_stream().cuda_stream)
if sys.argv[2] == "changing":
    place.change(["state"])
    view.zero_()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path() -> Iterator[Path]:
    directory = SocketDirectory()
    yield directory.path / "holder-0"
    directory.close()


@pytest.fixture
def holder(path: Path) -> Iterator[device_holder.HolderProcess]:
    with contextlib.closing(device_holder.start(path, 0)) as started:
        yield started


def killed(path: Path, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(path), when], timeout=WAIT_S, check=False)
    assert done.returncode == -signal.SIGKILL


def test_the_next_worker_maps_what_a_killed_one_has_sealed(
    path: Path, holder: device_holder.HolderProcess
) -> None:
    killed(path, "sealed")
    place = HeldPlace(path, place=0, generation=2, device=0)
    found = place.open_sealed(["state"], 5).memory["state"]
    parameter = torch.nn.Parameter(torch.empty(NUMBERS, device="cuda"))
    parameter.data = torch.as_tensor(found, device="cuda").view(torch.float32)
    assert parameter.data_ptr() == found.address
    del found
    holder.close()  # it was mapped here before, so it stays
    assert torch.equal(parameter.data, torch.arange(NUMBERS, device="cuda", dtype=torch.float32))
    place.close()
    del parameter


def test_what_was_changing_is_not_taken_for_whole(path: Path, holder: device_holder.HolderProcess) -> None:
    killed(path, "changing")
    place = HeldPlace(path, place=0, generation=2, device=0)
    with contextlib.closing(place), pytest.raises(TransferFailed, match="not sealed"):
        place.open_sealed(["state"])


def test_memory_goes_back_to_the_device_with_the_last_who_refers_to_it() -> None:
    torch.zeros(1, device="cuda")
    nbytes = 1 << 30
    before = torch.cuda.mem_get_info()[0]
    held = native.HeldMemory(0, nbytes)
    assert before - torch.cuda.mem_get_info()[0] >= nbytes
    del held
    assert before - torch.cuda.mem_get_info()[0] < nbytes


def test_more_than_there_is_is_an_error_with_cudas_name() -> None:
    with pytest.raises(NativeError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        native.HeldMemory(0, native.cuda_devices()[0]["memory_bytes"] + (1 << 30))
