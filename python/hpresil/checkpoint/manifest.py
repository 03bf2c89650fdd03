"""What a checkpoint directory says about itself: manifest.json and the commit marker.

The marker is written last and holds size and CRC-32C of the manifest, which holds those of every
other file: a directory with a valid marker is complete, and any damage is found and named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from hpresil import native
from hpresil.base.errors import DataError

FORMAT = "hpresil-checkpoint"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TENSORS = "state.safetensors"
MARKER = "COMMITTED"
CHUNK_BYTES = 8 << 20
_S = TypeVar("_S", bound=msgspec.Struct)


class FileSum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and CRC-32C (eight hex digits) of a file."""

    nbytes: int
    crc32c: str


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The commit marker; its format number is read before anything else."""

    format: str
    format_version: int
    manifest: FileSum


class StoredTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor in the order of the state; it lies in the safetensors file under the same name."""

    name: str
    section: str
    dtype: str
    shape: list[int]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything but the tensors. ``values`` (base64 in JSON) are `State.values`."""

    version: int
    identity: dict[str, str]
    record: dict[str, object]
    values: bytes
    tensors: list[StoredTensor]
    files: dict[str, FileSum]


def sum_of(data: bytes) -> FileSum:
    """Return size and checksum of ``data``."""
    return FileSum(len(data), f"{native.crc32c(data):08x}")


def sum_of_file(path: Path) -> FileSum:
    """Return size and checksum of the file at ``path``, read in pieces."""
    crc, nbytes = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc, nbytes = native.crc32c(chunk, crc), nbytes + len(chunk)
    return FileSum(nbytes, f"{crc:08x}")


def check(path: Path, expected: FileSum, found: FileSum) -> None:
    """Raise DataError if a file is not what was written."""
    if found.nbytes != expected.nbytes:
        size = f"{found.nbytes} bytes instead of {expected.nbytes}"
        raise DataError(f"{path} is truncated or was replaced: {size}; {ADVICE}")
    if found.crc32c != expected.crc32c:
        raise DataError(f"{path} is damaged: CRC-32C {found.crc32c} instead of {expected.crc32c}; {ADVICE}")


ADVICE = "resume from another checkpoint"


def read_marker(path: Path) -> Marker:
    """Return the commit marker of the checkpoint at ``path``.

    Raises:
        DataError: There is none, or it is of another format.
    """
    try:
        data = (path / MARKER).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path} is no complete checkpoint: it has no file {MARKER}; "
            "give a directory step-NNNNNNNN that has one"
        ) from error
    marker = _decode(data, Marker, path / MARKER)
    if marker.format != FORMAT or marker.format_version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format {marker.format} {marker.format_version}, this hpresil reads "
            f"{FORMAT} {FORMAT_VERSION}; resume with the hpresil that wrote it"
        )
    return marker


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the checkpoint at ``path``, checked against the commit marker.

    Raises:
        DataError: The checkpoint is incomplete, damaged or of another format.
    """
    marker = read_marker(path)
    data = read_file(path / MANIFEST)
    check(path / MANIFEST, marker.manifest, sum_of(data))
    return _decode(data, Manifest, path / MANIFEST)


def read_file(path: Path) -> bytes:
    """Return the contents of a file that a checkpoint must have."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {ADVICE}") from error


def _decode(data: bytes, kind: type[_S], path: Path) -> _S:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is damaged or not written by hpresil ({error}); {ADVICE}") from error
