"""Unix sockets that only this user can reach.

The directory must belong to the user and be closed to others (0700), the socket file has mode
0600, and the peer's user id is checked on every connection: three independent locks, because each
of them is missing somewhere (file modes of sockets are ignored on some systems, a directory may be
changed later).

Not guaranteed: protection from other processes of the same user.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from hpresil.base.errors import ConfigError

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of SO_PEERCRED
MAX_PATH_BYTES = 107  # sun_path without its final zero


def listening_socket(
    path: Path, backlog: int = 64, *, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """Return a listening socket at ``path``, whose directory is made if it is missing.

    Raises:
        ConfigError: The directory is open to others, or the path is too long for a socket.
    """
    encoded = os.fsencode(path)
    if len(encoded) > MAX_PATH_BYTES:
        raise ConfigError(
            f"socket path {path} has {len(encoded)} bytes; at most {MAX_PATH_BYTES} are possible"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"socket directory {path.parent} has mode {stat.S_IMODE(found.st_mode):o} and owner "
            f"{found.st_uid}; it must have mode 700 and belong to user {os.getuid()}"
        )
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.bind(str(path))
        os.chmod(path, 0o600)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end of a connected Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def is_same_user(sock: socket.socket) -> bool:
    """Return whether the process at the other end runs as this user."""
    return peer(sock)[1] == os.getuid()
