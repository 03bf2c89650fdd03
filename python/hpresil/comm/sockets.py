"""Finding the sockets a library opened, and shutting down exactly those.

The problem: gloo has no way to give up an operation whose peer hangs. What does work is to shut down one's
own side of its connections, but gloo does not say which descriptors these are. The design: the socket
inodes of the process are listed before and after gloo opens its own; a socket is named by (descriptor,
inode), so that a number which was closed and used again is never hit.

Never touch a listening socket: gloo terminates the process when its `accept` fails.

Thread safety: all functions from any thread.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple


class Endpoint(NamedTuple):
    """One socket of this process; ``peer`` is None for a socket that is not connected."""

    fd: int
    inode: int
    listening: bool
    local: tuple[str, int]
    peer: tuple[str, int] | None


def inodes() -> frozenset[int]:
    """Return the inodes of all sockets this process has open."""
    return frozenset(inode for _, inode in _sockets())


def opened_since(before: frozenset[int]) -> list[Endpoint]:
    """Return the TCP sockets whose inodes are not in ``before``.

    A connection that another thread opened meanwhile is listed too; the caller filters by address.
    """
    found = (_describe(fd, inode) for fd, inode in _sockets() if inode not in before)
    return [endpoint for endpoint in found if endpoint is not None]


def shut_down(endpoint: Endpoint) -> bool:
    """Shut down both directions of a connected socket; returns whether there was one to shut down.

    Safe at any time and from any thread: the descriptor is duplicated first, and nothing happens unless the
    duplicate still is the socket that was listed and has a peer.
    """
    try:
        fd = os.dup(endpoint.fd)
    except OSError:
        return False
    try:
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode) or found.st_ino != endpoint.inode:
            return False
        with socket.socket(fileno=os.dup(fd)) as handle:
            handle.getpeername()
            handle.shutdown(socket.SHUT_RDWR)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _sockets() -> list[tuple[int, int]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            entry = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(entry.st_mode):
            found.append((int(name), entry.st_ino))
    return found


def _describe(fd: int, inode: int) -> Endpoint | None:
    try:
        handle = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    with handle:
        try:
            tcp = handle.family in (socket.AF_INET, socket.AF_INET6) and handle.type == socket.SOCK_STREAM
            if not tcp or os.fstat(handle.fileno()).st_ino != inode:
                return None
            listening = bool(handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            return Endpoint(fd, inode, listening, handle.getsockname()[:2], _peer(handle))
        except OSError:
            return None


def _peer(handle: socket.socket) -> tuple[str, int] | None:
    try:
        host, port = handle.getpeername()[:2]
    except OSError:
        return None
    return host, port
