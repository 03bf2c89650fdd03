"""Flat tensors in memory files, so that the other workers of this node can read them.

The problem: through a socket each byte is copied twice by the kernel, on the cores that run the backward
pass. The design: a buffer is one *segment*, a sealed memory file of its owner. A peer opens it as
``/proc/PID/fd/N``, which the kernel allows to processes of one user on one node, and maps it read-only.
Nobody but the owner ever writes to a segment, and it cannot shrink, so a peer's death, early or late, harms
no reader.

A name is five numbers that travel with the step's statistics; a mapping is kept as long as the owner has
the segment and groups have that process. One of the numbers stands for the node (`home`): on another machine
the same path may lead to something that looks alike in everything else. Two nodes of a job that are on one
machine are two homes as well, so that a job tried there moves its bytes as it would between machines. What a
segment holds at which time is not decided here, see `exchange`.

Thread rule: `stand_on` before anything else, `allocate` and `name_of` in any thread, `Neighbours` in one
thread at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from hpresil import native
from hpresil.base.errors import HpresilError, NativeError
from hpresil.snapshot.memory import as_tensor

NAME_NUMBERS = 5


class Name(NamedTuple):
    """Where a segment is to be found; all zero for a tensor that is in none.

    ``home``: see `home`.
    """

    pid: int
    fd: int
    inode: int
    nbytes: int
    home: int


NOWHERE = Name(0, 0, 0, 0, 0)


_node = ""


def stand_on(node: str) -> None:
    """Say on which node of its job this process is."""
    global _node
    _node = node
    home.cache_clear()


@lru_cache(maxsize=1)
def home() -> int:
    """Return 63 bits that are equal on two processes exactly if they are on one node of a job.

    They stand for the kernel's boot, the name space of its process ids, and the node's name.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    where = f"{boot} {os.readlink('/proc/self/ns/pid')} {_node}"
    return int.from_bytes(hashlib.blake2b(where.encode(), digest_size=8).digest()) >> 1


_own: dict[int, Name] = {}  # by the address of its first byte


def allocate(dtypes: Sequence[torch.dtype], lengths: Sequence[int]) -> list[torch.Tensor]:
    """Return zeroed 1-D tensors that lie one after the other in a new segment, faulted in.

    Args:
        dtypes: Of each tensor; none larger than the one before would need alignment, so lengths are
            multiples of 16 elements.
        lengths: Elements of each.

    Raises:
        NativeError: There is not enough memory.
    """
    nbytes = sum(n * d.itemsize for n, d in zip(lengths, dtypes, strict=True))
    fd = native.memfd("hpresil-gradient", nbytes)
    mapping = native.Mapping(fd, nbytes, populate=True)
    native.seal(fd, shrink=True, grow=True, seal=True)
    _own[mapping.address] = Name(os.getpid(), fd, os.fstat(fd).st_ino, nbytes, home())
    weakref.finalize(mapping, _forget, mapping.address, fd)
    return cut(as_tensor(mapping), dtypes, lengths)


def _forget(address: int, fd: int) -> None:
    _own.pop(address, None)
    os.close(fd)


def cut(whole: torch.Tensor, dtypes: Sequence[torch.dtype], lengths: Sequence[int]) -> list[torch.Tensor]:
    """Return the tensors in the bytes of a segment: 1-D, one after the other, in the segment's own memory.

    Args:
        whole: The segment, 1-D uint8.
        dtypes: Of each tensor.
        lengths: Elements of each.
    """
    found, start = [], 0
    for dtype, length in zip(dtypes, lengths, strict=True):
        end = start + length * dtype.itemsize
        found.append(whole[start:end].view(dtype))
        start = end
    return found


def name_of(flats: Sequence[torch.Tensor]) -> Name:
    """Return the name of the segment that consists of ``flats``, `NOWHERE` if they are in none."""
    name = _own.get(flats[0].data_ptr(), NOWHERE) if flats else NOWHERE
    whole = name.nbytes == sum(flat.numel() * flat.element_size() for flat in flats)
    return name if whole and name.pid == os.getpid() else NOWHERE


class Neighbours:
    """Read-only mappings of other processes' segments, kept between reductions.

    Those of processes that are gone are given up at the first reduction that needs no new ones, in a thread
    of its own: the last mapping of a segment frees its memory, and a recovery should not wait for that.
    """

    def __init__(self) -> None:
        self._mapped: dict[Name, tuple[native.Mapping, torch.Tensor]] = {}
        self._left: list[native.Mapping] = []

    def __contains__(self, name: Name) -> bool:
        return name in self._mapped

    def __len__(self) -> int:
        return len(self._mapped)

    def open(self, names: Sequence[Name]) -> bool:
        """Map all of ``names``; returns False if one of them cannot be read from here.

        When there is a new one, mappings of what its owner has given back end: they alone keep its memory.
        """
        missing = [name for name in names if name not in self._mapped]
        if missing:
            here = {name.pid for name in names}
            for name in [name for name in self._mapped if name.pid not in here or not _is_there(name)]:
                self._left.append(self._mapped.pop(name)[0])
        elif self._left:
            left, self._left = self._left, []
            threading.Thread(target=_unmap, args=(left,), name="hpresil-unmap", daemon=True).start()
        try:
            for name in missing:
                self._mapped[name] = _map(name)
        except (OSError, HpresilError):
            return False
        return True

    def flats(self, name: Name, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the tensors of an open segment, 1-D, of the types and lengths of ``like``.

        They are valid as long as somebody holds them; writing to them is a crash. KeyError if it is not open.
        """
        return cut(self._mapped[name][1], [flat.dtype for flat in like], [flat.numel() for flat in like])


def _unmap(mappings: list[native.Mapping]) -> None:
    for mapping in mappings:
        with suppress(NativeError):  # somebody holds on to a tensor in it: it goes with that
            mapping.close()


def _path(name: Name) -> str:
    return f"/proc/{name.pid}/fd/{name.fd}"


def _is_there(name: Name) -> bool:
    """Whether the owner of a segment still has it."""
    try:
        return os.stat(_path(name)).st_ino == name.inode
    except OSError:
        return False


def _map(name: Name) -> tuple[native.Mapping, torch.Tensor]:
    if name == NOWHERE:
        raise OSError("the tensor is in no segment")
    if name.home != home():
        raise OSError(f"process {name.pid} is on another node")
    fd = os.open(_path(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        # A process id may have been used again, and what can shrink can crash its reader.
        if (found.st_ino, found.st_size) != (name.inode, name.nbytes):
            raise OSError(f"descriptor {name.fd} of process {name.pid} is another file")
        if not native.seals(fd) & fcntl.F_SEAL_SHRINK:
            raise OSError(f"descriptor {name.fd} of process {name.pid} is no segment")
        mapping = native.Mapping(fd, name.nbytes, writable=False)
        return mapping, as_tensor(mapping)
    finally:
        os.close(fd)
