"""The memory of the agent's snapshot frames: memory files that outlive the workers.

They are created empty before the first worker starts, inherited by all, and grown when a worker says how
large its state is. Growing reserves the pages at once (in a thread): a machine without the memory is
found out then, with a clear error, and not by the kernel's out-of-memory killer during a recovery; and
the first snapshot does not pay for page faults. The agent maps them only to move them to other nodes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from hpresil.base.errors import ConfigError
from hpresil.native import Mapping, memfd, seal

CHUNK_BYTES = 256 << 20
PAGE_BYTES = 4096


class Arenas:
    """The frames' memory files.

    Args:
        frames: How many.
    """

    def __init__(self, frames: int = 2) -> None:
        self.fds: tuple[int, ...] = tuple(memfd(f"hpresil-frame-{i}") for i in range(frames))
        for fd in self.fds:
            seal(fd, shrink=True)
        self.frame_bytes = 0
        self.used = [0] * frames
        """How many bytes of each sealed frame mean something."""
        self._growing = asyncio.Lock()
        self._mappings: dict[int, Mapping] = {}

    async def grow(self, frame_bytes: int) -> bool:
        """Make every frame at least ``frame_bytes`` long; return whether they had been shorter.

        Raises:
            ConfigError: The machine has not enough memory.
        """
        async with self._growing:
            if frame_bytes <= self.frame_bytes:
                return False
            wanted = -(-frame_bytes // PAGE_BYTES) * PAGE_BYTES
            await asyncio.to_thread(self._reserve, wanted)
            self.frame_bytes = wanted
            return True

    async def mapping(self, frame: int) -> Mapping:
        """Return one frame's memory, writable, every page of it faulted in."""
        async with self._growing:
            known = self._mappings.get(frame)
            if known is None or known.nbytes < self.frame_bytes:
                known = await asyncio.to_thread(Mapping, self.fds[frame], self.frame_bytes, True, True)
                self._mappings[frame] = known
            return known

    async def map_all(self) -> None:
        """Have all frames mapped before they are needed."""
        for frame in range(len(self.fds)):
            await self.mapping(frame)

    def close(self) -> None:
        """Give the memory back, once no worker has it open either."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()
        self._mappings.clear()

    def _reserve(self, wanted: int) -> None:
        missing = (wanted - self.frame_bytes) * len(self.fds)
        available = available_bytes()
        if available is not None and missing > available:
            raise ConfigError(_too_much(wanted, len(self.fds), f"{available >> 20} MiB are available"))
        for fd in self.fds:
            for start in range(self.frame_bytes, wanted, CHUNK_BYTES):
                try:
                    os.posix_fallocate(fd, start, min(CHUNK_BYTES, wanted - start))
                except OSError as error:
                    raise ConfigError(_too_much(wanted, len(self.fds), str(error.strerror))) from error


def _too_much(wanted: int, frames: int, why: str) -> str:
    return (
        f"no memory for snapshots: {frames} frames of {wanted >> 20} MiB each are needed to restore workers, "
        f"but {why}; use a machine with more memory, or a smaller model or fewer workers"
    )


def available_bytes() -> int | None:
    """Return the memory that can be had without swapping, None if the kernel does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None
