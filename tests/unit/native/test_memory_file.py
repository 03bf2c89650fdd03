"""Memory files, their seals and their mappings."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from hpresil import native
from hpresil.base.errors import HpresilError, NativeError


@pytest.fixture
def fd() -> Iterator[int]:
    fd = native.memfd("test", 8192)
    yield fd
    os.close(fd)


def test_a_memory_file_has_its_size_and_is_closed_on_exec(fd: int) -> None:
    assert os.fstat(fd).st_size == 8192
    assert not os.get_inheritable(fd)
    assert native.seals(fd) == 0


def test_a_sealed_file_cannot_shrink_or_lose_its_seal(fd: int) -> None:
    native.seal(fd, shrink=True)
    native.seal(fd, grow=True, seal=True)
    assert native.seals(fd) == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    for size in (4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(NativeError, match=r"sealing descriptor \d+: Operation not permitted \(errno 1\)"):
        native.seal(fd, write=True)


def test_two_mappings_share_their_bytes(fd: int) -> None:
    with native.Mapping(fd, 8192) as one, native.Mapping(fd, 4096, writable=False, populate=True) as two:
        assert (one.nbytes, two.nbytes) == (8192, 4096)
        with memoryview(one) as written, memoryview(two) as read:
            written[100:103] = b"abc"
            assert read[100:103] == b"abc"
            assert read.readonly
            with pytest.raises(TypeError):
                read[0] = 1


def test_a_mapping_outlives_its_descriptor() -> None:
    fd = native.memfd("short", 4096)
    mapping = native.Mapping(fd, 4096)
    os.close(fd)
    array = np.frombuffer(mapping, np.uint8)
    array[5] = 7
    assert array.ctypes.data == mapping.address
    assert memoryview(mapping)[5] == 7


def test_a_mapping_with_views_stays_open(fd: int) -> None:
    mapping = native.Mapping(fd, 8192)
    array = np.frombuffer(mapping, np.float32)
    with pytest.raises(NativeError, match="cannot be closed: 1 views into it are alive"):
        mapping.close()
    array[0] = 1.0
    del array
    mapping.close()
    mapping.close()
    with pytest.raises(BufferError, match="the mapping is closed"):
        memoryview(mapping)
    with pytest.raises(NativeError, match="the mapping is closed"):
        _ = mapping.address


def test_a_view_keeps_its_mapping_alive(fd: int) -> None:
    view = memoryview(native.Mapping(fd, 8192))
    view[8191] = 1
    assert view[8191] == 1


def test_mapping_more_than_there_is_is_refused(fd: int) -> None:
    with pytest.raises(NativeError, match="holds 8192 bytes, cannot map 8193"):
        native.Mapping(fd, 8193)
    with pytest.raises(NativeError, match="at least one byte"):
        native.Mapping(fd, 0)


def test_a_closed_descriptor_is_an_error_with_its_number() -> None:
    fd = native.memfd("gone", 4096)
    os.close(fd)
    with pytest.raises(NativeError, match=rf"fstat of descriptor {fd}: Bad file descriptor \(errno 9\)"):
        native.Mapping(fd, 4096)


def test_a_file_sealed_against_writing_can_be_read(fd: int) -> None:
    native.seal(fd, write=True)
    with pytest.raises(NativeError, match="Operation not permitted"):
        native.Mapping(fd, 8192)
    with native.Mapping(fd, 8192, writable=False) as mapping:
        assert mapping.nbytes == 2 * mmap.PAGESIZE


def test_the_error_is_the_one_of_the_tree() -> None:
    assert issubclass(NativeError, HpresilError)
    with pytest.raises(NativeError, match=r"\[csrc/memory/memfd.cpp:\d+\]"):
        native.seals(-1)
