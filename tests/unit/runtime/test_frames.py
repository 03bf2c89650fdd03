"""Each worker maps the agent's frames once, although others make them larger at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hpresil import native
from hpresil.runtime import frames
from hpresil.runtime.frames import Frames
from hpresil.snapshot.layout import HEADER_BYTES


@pytest.fixture
def fd() -> Iterator[int]:
    made = native.memfd("test-frames", 0)
    native.seal(made, shrink=True)
    yield made
    os.close(made)


def test_a_frame_grows_to_what_was_asked_for(fd: int) -> None:
    known = Frames([fd])
    assert known.filled(0) is None
    assert known.mapped(0, 3 * HEADER_BYTES).nbytes == 3 * HEADER_BYTES
    assert known.mapped(0, 5 * HEADER_BYTES).nbytes == 5 * HEADER_BYTES


def test_a_mapping_that_is_large_enough_is_kept_when_the_file_grows(fd: int) -> None:
    """Mapping and faulting in again took over a second in the middle of a recovery."""
    known = Frames([fd])
    before = known.mapped(0, 4 * HEADER_BYTES)
    os.posix_fallocate(fd, 0, 9 * HEADER_BYTES)
    assert known.mapped(0, 2 * HEADER_BYTES) is before
    assert known.filled(0) is before


def test_a_frame_that_somebody_just_made_larger_is_not_made_smaller(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = os.fstat(fd)
    os.posix_fallocate(fd, 0, 9 * HEADER_BYTES)
    monkeypatch.setattr(frames.os, "fstat", lambda _: small)  # looked at before the other one's growth
    frames.make_room(fd, 4 * HEADER_BYTES)
    monkeypatch.undo()
    assert os.fstat(fd).st_size == 9 * HEADER_BYTES
