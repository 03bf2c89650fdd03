"""What readers may take of a frame that is still on its way, from nothing to everything."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator

import pytest

from frame_bytes import frame_of
from hpresil import native
from hpresil.base.errors import TransferFailed
from hpresil.launch.arriving import Arriving
from hpresil.native import memfd
from hpresil.snapshot import frame as reader, preface
from hpresil.snapshot.preface import HEADER_BYTES

NBYTES = 1 << 20
CONTENT = frame_of(NBYTES)
ROWS = 16


@pytest.fixture
def fd() -> Iterator[int]:
    made = memfd("arriving", NBYTES)
    yield made
    os.close(made)


def bring(fd: int, nbytes: int) -> None:
    os.pwrite(fd, CONTENT[HEADER_BYTES:nbytes], HEADER_BYTES)


def there(fd: int) -> int:
    return reader.Frame(fd, whole=False).there


def end_of(tensors: int) -> int:
    first = 12288
    return first + (NBYTES - first) // ROWS // 64 * 64 * tensors


def test_nothing_is_valid_before_a_tensor_is_there(fd: int) -> None:
    os.pwrite(fd, frame_of(NBYTES, version=3), 0)
    arriving = Arriving(fd, CONTENT[:HEADER_BYTES])
    for nbytes in (HEADER_BYTES, 8000, 12288, end_of(1) - 1):
        bring(fd, nbytes)
        arriving.came(nbytes)
        with pytest.raises(TransferFailed):
            reader.Frame(fd, whole=False)


def test_a_reader_finds_the_tensors_that_are_there_and_then_all(fd: int) -> None:
    arriving = Arriving(fd, CONTENT[:HEADER_BYTES])
    for tensors in (1, 5, 12, 15):
        bring(fd, end_of(tensors))
        arriving.came(end_of(tensors))
        assert there(fd) == tensors
        arriving.came(end_of(tensors) - 100)  # what was there stays
        assert there(fd) == tensors
        with pytest.raises(TransferFailed, match="not sealed"):
            reader.Frame(fd)
        assert reader.holds(native.Mapping(fd, NBYTES, writable=False), 7, 2)
    bring(fd, NBYTES)
    arriving.whole()
    reader.Frame(fd).verify()
    assert os.pread(fd, NBYTES, 0) == CONTENT


def test_what_is_given_up_is_no_frame(fd: int) -> None:
    arriving = Arriving(fd, CONTENT[:HEADER_BYTES])
    bring(fd, end_of(3))
    arriving.came(end_of(3))
    assert there(fd) == 3
    arriving.given_up()
    with pytest.raises(TransferFailed):
        reader.Frame(fd, whole=False)


def test_a_manifest_that_is_damaged_lets_nobody_read_early(fd: int) -> None:
    arriving = Arriving(fd, CONTENT[:HEADER_BYTES])
    bring(fd, NBYTES)
    os.pwrite(fd, b"\xff", HEADER_BYTES + 20)
    arriving.came(NBYTES - 1)
    with pytest.raises(TransferFailed):
        reader.Frame(fd, whole=False)


def test_a_manifest_that_says_nothing_lets_nobody_read_early(fd: int) -> None:
    header = preface.parse_header(CONTENT[:HEADER_BYTES], NBYTES, native.crc32c)
    nonsense = b"\xc1" * header.manifest_bytes
    page = dataclasses.replace(header, manifest_crc=native.crc32c(nonsense)).packed()
    seal = struct.pack("<Q", preface.seal_word(native.crc32c(page)))
    arriving = Arriving(fd, page + seal + CONTENT[len(page) + len(seal) : HEADER_BYTES])
    bring(fd, NBYTES)
    os.pwrite(fd, nonsense, HEADER_BYTES)
    arriving.came(NBYTES - 1)
    with pytest.raises(TransferFailed):
        reader.Frame(fd, whole=False)


@pytest.mark.parametrize("place", [0, 8, 20, 100, preface.SEAL_OFFSET])
def test_a_first_page_that_is_damaged_is_refused_and_changes_nothing(fd: int, place: int) -> None:
    os.pwrite(fd, CONTENT, 0)
    head = bytearray(CONTENT[:HEADER_BYTES])
    head[place] ^= 1
    with pytest.raises(TransferFailed):
        Arriving(fd, bytes(head))
    reader.Frame(fd).verify()


def test_a_first_page_of_a_part_is_refused(fd: int) -> None:
    arriving = Arriving(fd, CONTENT[:HEADER_BYTES])
    bring(fd, end_of(3))
    arriving.came(end_of(3))
    with pytest.raises(TransferFailed, match="not sealed"):
        Arriving(fd, os.pread(fd, HEADER_BYTES, 0))
