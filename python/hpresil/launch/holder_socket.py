"""The socket file of a device holder: it removes what a dead holder has left, its own, and nothing else."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from hpresil.base.errors import ConfigError
from hpresil.membership import endpoint

CONNECT_S = 5.0


class HolderSocket:
    """Listens at ``path``; ``sock`` is the listening socket.

    Raises:
        ConfigError: Somebody listens there, it is no socket, or its directory is open to others.
    """

    def __init__(self, path: Path) -> None:
        clear(path)
        self.sock = endpoint.listening_socket(path, kind=socket.SOCK_SEQPACKET)
        self._path, self._file = path, _file(path)

    def close(self) -> None:
        """Stop listening; the file goes, unless another holder has put its own in its place."""
        # Before the socket is closed: until then the kernel gives its inode to no other file.
        if self._file is not None and _file(self._path) == self._file:
            self._path.unlink(missing_ok=True)
        self.sock.close()


def clear(path: Path) -> None:
    """Remove the socket of a holder that was killed. Raises ConfigError if there is anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is no socket and is left as it is; choose another path for the socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as trial:
        trial.settimeout(CONNECT_S)
        try:
            trial.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return path.unlink(missing_ok=True)
        except (BlockingIOError, TimeoutError):
            pass  # it is there, but stopped, and as many as can wait for it do
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be used for a device holder: {error}; choose another"
            ) from error
    raise ConfigError(f"there is a device holder at {path}; end it, or choose another socket")


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
