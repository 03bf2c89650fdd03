"""Where the frames of a script under plain torchrun are, and how they go away again.

Frames survive a process only if something else holds their memory. Three places:

* anonymous memory files of this process: gone with it;
* memory files that another process holds and hands over as descriptors: gone when that one lets go;
* files in a directory of ``/dev/shm``: there until they are removed. So that nothing is left behind, the
  directory of a torchrun agent is removed by whoever notices first that it is not needed any more: the last
  worker that closes its snapshots well; a small process (`keeper`) that waits for the agent's end, however it
  ends; the next start of any job of this user, which removes directories of agents that are gone. The keeper
  also removes the empty directory around them, at whatever moment: a job that is just about to put its own
  there makes it again (`files`).

A frame must not be filled while its old writer is alive. The writer holds a lock, which the kernel gives back
after the last thread of it has lost its memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hpresil.base.errors import ConfigError, DeadlineExceeded
from hpresil.snapshot import keeper

SHARED_MEMORY = Path("/dev/shm")
LOCK_S = 60.0
POLL_S = 0.01


def files(directory: Path | None, rank: int, frames: int) -> FrameFiles | None:
    """Return the frame files of a rank, in ``directory`` or that of the torchrun agent; None without either.

    Another process that ends may remove a directory between its making and its first file; then it is made
    again.

    Args:
        directory: Where the files are; made if it is not there.
        rank: Whose they are.
        frames: How many.

    Raises:
        ConfigError: The directory for torchrun's agents belongs to somebody else.
        DeadlineExceeded: Another process, alive, has the files, or the directory is removed again and again.
    """
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            if directory is not None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            where = of_torchrun() if directory is None else directory
            return None if where is None else FrameFiles(where, rank, frames)
        except FileNotFoundError as error:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"the frames of rank {rank} have no directory: it was removed after each making for "
                    f"{LOCK_S:g} s ({error}); end what removes it, or give another one"
                ) from error
            time.sleep(POLL_S)


def of_torchrun(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the directory for the frames of this torchrun agent's workers, made and kept.

    None without torchrun.

    Raises:
        ConfigError: The directory belongs to somebody else.
        FileNotFoundError: It, or the one around it, was removed just now by a job that ended.
    """
    environment = os.environ if environment is None else environment
    job = environment.get("TORCHELASTIC_RUN_ID")
    if job is None or not SHARED_MEMORY.is_dir():
        return None
    agent = os.getppid()
    home = private(SHARED_MEMORY / f"hpresil-{os.getuid()}")
    sweep(home)
    digest = hashlib.blake2b(job.encode(), digest_size=6).hexdigest()
    directory = private(home / f"{_namespace()}-{agent}-{keeper.started(agent)}-{digest}")
    keep(directory, agent)
    return directory


def private(directory: Path) -> Path:
    """Make a directory, in one that is there, that only this user can look into.

    Raises:
        ConfigError: There is another one.
        FileNotFoundError: The one around it is not there, or it was removed at once.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not mine or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"{directory} is not a directory of this user alone; remove it, or give another one"
        )
    return directory


def keep(directory: Path, agent: int) -> None:
    """Start the process that removes ``directory`` when ``agent`` has ended; at once over if there is one.

    Raises:
        ConfigError: This interpreter cannot be started any more.
    """
    try:
        subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(directory), str(agent)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"nothing would remove {directory}: {sys.executable!r} cannot be started ({error.strerror}); "
            "mend it, or give a directory of your own"
        ) from error


def sweep(home: Path) -> None:
    """Remove the directories of agents of this machine and name space that are gone."""
    for directory in home.iterdir():
        found = re.fullmatch(r"(\d+)-(\d+)-(\d+)-[0-9a-f]+", directory.name)
        if found is None or int(found[1]) != _namespace():
            continue
        if keeper.started(int(found[2])) != int(found[3]):
            shutil.rmtree(directory, ignore_errors=True)


def _namespace() -> int:
    """Process ids mean something only within one of these, and containers may share their memory."""
    return os.stat("/proc/self/ns/pid").st_ino


class FrameFiles:
    """The frame files of one rank in a directory that is there, locked for this process; see `files`.

    Raises:
        DeadlineExceeded: Another process, alive, has them.
        FileNotFoundError: The directory is gone.
    """

    def __init__(self, directory: Path, rank: int, frames: int) -> None:
        self._directory = directory
        self._lock_path = directory / f"rank-{rank}.lock"
        self._paths = [directory / f"rank-{rank}.frame-{number}" for number in range(frames)]
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for_lock(rank)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self.fds = [os.open(path, flags, 0o600) for path in self._paths]
        except BaseException:
            os.close(self._lock)
            raise

    def _wait_for_lock(self, rank: int) -> None:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(
                        f"the frames of rank {rank} in {self._directory} have belonged to another process "
                        f"for {LOCK_S:g} s; end it, or give another directory"
                    ) from None
                time.sleep(POLL_S)

    def close(self, *, remove: bool) -> None:
        """Give the lock back; with ``remove`` also the files, and the directory with the last of them."""
        if remove:
            for path in [*self._paths, self._lock_path]:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: other ranks
                (self._directory / keeper.LOCK).unlink(missing_ok=True) if self._alone() else None
                self._directory.rmdir()
        for fd in [*self.fds, self._lock]:
            os.close(fd)

    def _alone(self) -> bool:
        return all(path.name == keeper.LOCK for path in self._directory.iterdir())
