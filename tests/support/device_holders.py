"""A device holder with host memory for the device's, in a process or in this one, and workers that use it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hpresil import native
from hpresil.launch import device_holder
from hpresil.launch.run_directory import SocketDirectory
from hpresil.snapshot import HeldPlace

WORKER = Path(__file__).parents[1] / "unit" / "launch" / "held_worker.py"
NAMES = ["parameters", "optimizer"]
HOST = native.HOST_DEVICE
END_S = 20.0
ROUNDS = 8
UNIT = 2 << 20


@pytest.fixture
def path():
    directory = SocketDirectory()
    yield directory.path / "holder"
    directory.close()


@pytest.fixture
def holder(path):
    started = device_holder.start(path, HOST)
    yield started
    started.close()
    assert not path.exists()


@pytest.fixture
def inside(path):
    """A holder in this process, which answers when it is told to look."""
    made = device_holder.DeviceHolder(path, HOST)
    yield made
    made.close()


@contextlib.contextmanager
def answering(holder):
    """A holder in this process that looks, in a thread, until the end."""
    end = threading.Event()

    def look():
        while not end.is_set():
            holder.look(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(END_S)
        assert not thread.is_alive()


def at(path, *, place=1, generation=9, timeout_s=END_S):
    return contextlib.closing(
        HeldPlace(path, place=place, generation=generation, device=HOST, timeout_s=timeout_s)
    )


@contextlib.contextmanager
def worker(path, generation=1, point="never"):
    """A worker that changes its memory for ever, or until it kills itself at ``point``."""
    process = subprocess.Popen([sys.executable, WORKER, str(path), str(generation), point])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(ready):
    end = time.monotonic() + END_S
    while not (found := ready()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def holds(memory, version):
    return all((np.frombuffer(one, np.uint8) == version % 251).all() for one in memory.values())
