"""A version on disk: complete, or not there.

    DIRECTORY/step-NNNNNNNN/
        state.safetensors    all tensors
        manifest.json        python values, identity, record, checksums
        COMMITTED            written last

The directory is written under another name, every file and the directory itself synced, and then
renamed, so a crash or a full disk at any moment leaves either the whole version or nothing that
`newest` would return. What a dead writer left behind is removed by the next `save`: a living one holds
a lock on its directory. Nothing is unpickled; every byte is checked before it is used.

Not guaranteed: that two writers of one version agree; the later one replaces the earlier.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from hpresil.base.errors import DataError
from hpresil.checkpoint import manifest as m, tensors
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.state import State
from hpresil.snapshot.values import dtype_name

_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = re.compile(r"\.step-\d{8,}\.partial-\d+")


def save(
    directory: str | os.PathLike[str],
    state: State,
    *,
    version: int,
    identity: dict[str, str],
    record: dict[str, object] | None = None,
) -> Path:
    """Make ``state`` durable as version ``version`` and return the checkpoint's directory.

    Args:
        directory: Where checkpoints live; created if missing.
        state: What to save; must not change meanwhile.
        version: The version it is.
        identity: What a job that resumes from it must have in common with this one.
        record: Anything else to keep (JSON values), for `describe`.

    Raises:
        OSError: The disk is full or cannot be written; nothing is left behind.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"step-{version:08d}"
    _remove_abandoned(root)
    try:
        with _partial(root / f".{target.name}.partial-{os.getpid()}") as partial:
            _write(partial, state, version, identity, record or {})
            _publish(partial, target)
    except OSError as error:
        what = f"version {version} ({state.nbytes} bytes) could not be saved in {root}: {error.strerror}"
        raise OSError(error.errno, what) from error
    return target


def newest(directory: str | os.PathLike[str]) -> Path | None:
    """Return the complete checkpoint with the highest version, or None; incomplete ones are ignored."""
    root = Path(directory)
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    found = sorted(
        ((int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))), reverse=True
    )
    return next((root / name for _, name in found if _is_complete(root / name)), None)


def describe(path: str | os.PathLike[str]) -> m.Manifest:
    """Return the manifest of a checkpoint: version, identity, record, list of tensors.

    Raises:
        DataError: The checkpoint is incomplete, damaged or of another format.
    """
    return m.read_manifest(Path(path))


def load(path: str | os.PathLike[str]) -> tuple[int, State, dict[str, str]]:
    """Return (version, state, identity) of the checkpoint at ``path``, every byte verified.

    Raises:
        DataError: A file is missing, truncated, damaged or foreign; the message names it.
    """
    root = Path(path)
    manifest = m.read_manifest(root)
    if set(manifest.files) != {m.TENSORS}:
        raise DataError(f"{root / m.MANIFEST} lists the files {sorted(manifest.files)}; {m.ADVICE}")
    if {row.section for row in manifest.tensors} - set(SECTIONS):
        raise DataError(f"{root / m.MANIFEST} has tensors in unknown sections; {m.ADVICE}")
    file = root / m.TENSORS
    try:
        m.check(file, manifest.files[m.TENSORS], m.sum_of_file(file))
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing; {m.ADVICE}") from error
    state = State(tensors.read(file, manifest.tensors), manifest.values)
    state.structure()
    return manifest.version, state, manifest.identity


def _write(
    partial: Path, state: State, version: int, identity: dict[str, str], record: dict[str, object]
) -> None:
    with (partial / m.TENSORS).open("wb") as file:
        summed = tensors.write(file, state.tensors)
        file.flush()
        os.fsync(file.fileno())
    rows = [m.StoredTensor(e.name, e.section, dtype_name(e.dtype), list(e.shape)) for e in state.tensors]
    manifest = m.Manifest(version, identity, record, state.values, rows, {m.TENSORS: summed})
    body = _json(manifest)
    _write_synced(partial / m.MANIFEST, body)
    _write_synced(partial / m.MARKER, _json(m.Marker(m.FORMAT, m.FORMAT_VERSION, m.sum_of(body))))
    _sync_directory(partial)


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _publish(partial: Path, target: Path) -> None:
    """Give the directory its name; an earlier one of the same version makes way and is removed."""
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    if target.exists():
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        with suppress(FileNotFoundError):
            old.rename(target)
        raise
    _sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A new directory, locked while its writer lives, and gone at the end unless it was renamed."""
    lock = _create_locked(path)
    try:
        yield path
    finally:
        os.close(lock)
        shutil.rmtree(path, ignore_errors=True)


def _create_locked(path: Path) -> int:
    """Create a directory and return a descriptor that holds its lock; others clean up unlocked ones."""
    for _ in range(16):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        lock = None
        with suppress(FileNotFoundError):
            lock = _try_lock(path)
        if lock is None:
            continue  # somebody took the directory for abandoned between mkdir and lock
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # … and removed it
    raise OSError(errno.EBUSY, "another process keeps removing the directory", str(path))


def _remove_abandoned(root: Path) -> None:
    for path in root.iterdir():
        if not _PARTIAL.fullmatch(path.name):
            continue
        with suppress(FileNotFoundError):  # renamed or removed by its owner just now
            lock = _try_lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _try_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of ``directory``, or None if another process does."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_complete(path: Path) -> bool:
    try:
        manifest = m.read_manifest(path)
        return all((path / name).stat().st_size == file.nbytes for name, file in manifest.files.items())
    except (DataError, OSError):
        return False


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
