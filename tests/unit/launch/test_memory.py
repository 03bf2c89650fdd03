import asyncio
import fcntl
import os

import pytest

from hpresil.base.errors import ConfigError
from hpresil.launch.memory import Arenas, available_bytes


def test_frames_grow_with_their_pages_and_never_shrink():
    async def grow():
        arenas = Arenas()
        assert await arenas.grow(5000)
        assert not await arenas.grow(100)
        assert await arenas.grow(10_000)
        found = [os.fstat(fd) for fd in arenas.fds]
        seals = [fcntl.fcntl(fd, fcntl.F_GET_SEALS) for fd in arenas.fds]
        with pytest.raises(PermissionError):
            os.ftruncate(arenas.fds[0], 0)
        arenas.close()
        return found, seals

    found, seals = asyncio.run(grow())
    assert [stat.st_size for stat in found] == [12288, 12288]
    assert all(stat.st_blocks * 512 >= 12288 for stat in found), "the pages are not reserved"
    assert all(seal & fcntl.F_SEAL_SHRINK for seal in seals)


def test_more_than_the_machine_has_is_refused_before_it_hurts():
    async def grow():
        arenas = Arenas()
        try:
            await arenas.grow(1 << 50)
        finally:
            arenas.close()

    with pytest.raises(ConfigError, match=r"2 frames of 1073741824 MiB each .* but \d+ MiB are available"):
        asyncio.run(grow())


def test_a_kernel_that_refuses_pages_is_a_clear_error(monkeypatch):
    def refuse(fd, start, nbytes):
        raise OSError(12, "Cannot allocate memory")

    async def grow():
        arenas = Arenas()
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        try:
            await arenas.grow(4096)
        finally:
            arenas.close()

    with pytest.raises(ConfigError, match="Cannot allocate memory; use a machine with more memory"):
        asyncio.run(grow())


def test_the_kernel_tells_how_much_is_available():
    assert available_bytes() > 0
