"""Device memory that a worker uses and does not own: its place at the device holder of its GPU.

A worker that is restarted on the same GPU maps what the one before it has left, instead of copying it. What
it gets by `open_sealed` is whole: it was sealed after the device had done all that was queued, nothing was to
write to it since, and its checksum is verified.

    place = HeldPlace(path, place=rank, generation=3, device=0)
    memory = place.allocate("state", nbytes)            or   place.open_sealed(["state"]).memory["state"]
    view = torch.as_tensor(memory, device="cuda")       uint8, no copy; keeps the memory mapped
    place.change(["state"]); …write…; place.seal(version, {"state": memory}, stream=…)

A value that cannot be (a name with a blank, no names, a negative version) raises `UsageError` and changes
nothing. When the holder ends, calls raise `TransferFailed`. What is mapped stays mapped and can be used: but
nobody keeps it beyond this process.

Not guaranteed: that nobody writes between `seal` and `change` (a stray kernel is found by its checksum only).
"""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from hpresil import native
from hpresil.base.deadline import Deadline
from hpresil.base.errors import (
    ConfigError,
    DeadlineExceeded,
    GenerationChanged,
    HpresilError,
    NativeError,
    TransferFailed,
    UsageError,
)
from hpresil.membership import endpoint
from hpresil.membership.worker_messages import Message
from hpresil.snapshot import held_messages as m

TIMEOUT_S = 30.0
POLL_S = 0.02
HOST = "host"
A = TypeVar("A", bound=Message)
ERRORS: dict[str, type[HpresilError]] = {
    "stale": GenerationChanged,
    "unknown": TransferFailed,
    "room": ConfigError,
    "device": NativeError,
    "misuse": UsageError,
}


@dataclass(frozen=True)
class SealedMemory:
    """Memory that holds one version, whole; ``memory`` by name."""

    version: int
    memory: dict[str, native.MappedDeviceMemory]


class HeldPlace:
    """One place at a device holder. It belongs to this process until the process ends.

    Thread safety: every method from any thread; the holder answers one at a time.

    Args:
        path: The holder's socket.
        place: The worker's rank on this GPU, or in the job: what a restarted worker has in common with it.
        generation: Of the view the worker is in. Older ones are refused.
        device: CUDA's number of the device in this process, or `native.HOST_DEVICE`.
        timeout_s: How long any answer may take, and the former process of the place to end.

    Raises:
        GenerationChanged: The place is of a newer generation.
        ConfigError: The holder has another user, or memory of another device.
        UsageError: A negative place or generation.
        TransferFailed: There is no holder, or it has ended.
        DeadlineExceeded: No answer in time, or the place's former process is still there.
    """

    def __init__(
        self, path: Path, *, place: int, generation: int, device: int, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._path, self._place, self._device, self._timeout_s = path, place, device, timeout_s
        self._talking = threading.Lock()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._sock.settimeout(timeout_s)
            self._connect()
            self._attach(generation)
        except BaseException:
            self._sock.close()
            raise

    def __str__(self) -> str:
        return f"place {self._place} at the device holder {self._path}"

    def allocate(self, name: str, nbytes: int) -> native.MappedDeviceMemory:
        """Return new memory, not sealed, with any contents; as a multiple of 2 MiB on the device.

        Raises:
            UsageError: There is memory of this name, or it is none: 1 to 64 of ``A-Za-z0-9_./:-``.
            ConfigError: The holder may not hold so much.
            NativeError: The device has no room, or cannot pass memory.
        """
        return self._taken(m.Allocate(name=name, nbytes=nbytes))[1]

    def open(self, name: str) -> native.MappedDeviceMemory:
        """Return memory that is there, whatever it holds: to be filled anew. Raises TransferFailed."""
        return self._taken(m.Open(name=name))[1]

    def open_sealed(
        self, names: Sequence[str], version: int | None = None, *, stream: int = 0
    ) -> SealedMemory:
        """Return memory that is whole, all of one version.

        Args:
            names: Which.
            version: The version to expect; None: any, the same for all.
            stream: Where the checksums are computed, see `seal`.

        Raises:
            TransferFailed: It is not there, not sealed, of another version, or damaged.
        """
        found = {name: self._taken(m.Open(name=name)) for name in names}
        if not found:
            raise UsageError(f"{self}: no name was given to open_sealed")
        rows = [row for row, _ in found.values()]
        expected = rows[0].version if version is None else version
        for row in rows:
            if row.version == m.UNSEALED:
                self._unusable(row, "is not sealed: its writer has not finished or died")
            if row.version != expected:
                self._unusable(row, f"holds version {row.version}, not {expected}")
        for row, memory in found.values():
            if checksum(memory, stream, self._timeout_s) != row.checksum:
                self._unusable(row, f"has not the checksum that version {row.version} was sealed with")
        return SealedMemory(expected, {name: memory for name, (_, memory) in found.items()})

    def change(self, names: Sequence[str]) -> None:
        """Say that these are about to be written to; nothing may write before this returns."""
        self._ask(m.Change(names=tuple(names)), m.Done)

    def seal(self, version: int, memory: Mapping[str, native.MappedDeviceMemory], *, stream: int = 0) -> None:
        """Say that these hold ``version``, whole, until the next `change`.

        Reads all of it for the checksums and waits for them, so for all that ``stream`` had to do before.

        Args:
            version: What they hold.
            memory: By name, as they were opened.
            stream: A handle (``torch.cuda.Stream.cuda_stream``) of the current device; whatever wrote to the
                memory comes before it.
        """
        sums = {name: checksum(one, stream, self._timeout_s) for name, one in memory.items()}
        self._ask(m.Seal(version=version, sums=sums), m.Done)

    def drop(self, name: str) -> None:
        """Have the holder let go of it; it stays as long as it is mapped here."""
        self._ask(m.Drop(name=name), m.Done)

    def rows(self) -> tuple[m.Row, ...]:
        """Return what the holder holds, of all places."""
        return self._ask(m.Look(), m.Rows)[0].rows

    def close(self) -> None:
        """Hang up. The place stays this process's: what is queued may still write to its memory."""
        with self._talking:
            self._sock.close()

    def _connect(self) -> None:
        try:
            self._sock.connect(str(self._path))
        except OSError as error:
            raise TransferFailed(f"{self} cannot be reached: {error}; start the holder first") from error
        if not endpoint.is_same_user(self._sock):
            raise ConfigError(f"{self}: that process belongs to another user; give another socket")

    def _attach(self, generation: int) -> None:
        deadline = Deadline(self._timeout_s, f"the end of the last process of {self}")
        while True:
            answer, _ = self._exchange(m.Attach(place=self._place, generation=generation))
            if not (isinstance(answer, m.Denied) and answer.kind == "busy"):
                break
            if deadline.expired():
                raise DeadlineExceeded(
                    f"{self}: {answer.why}, for {self._timeout_s:g} s; end it with all its children"
                )
            time.sleep(POLL_S)
        mine = identity(self._device)
        theirs = self._expected(answer, m.Welcome).device
        if theirs != mine:
            raise ConfigError(f"{self} holds memory of {theirs}, this worker uses {mine}; use that one's")

    def _taken(self, request: m.Allocate | m.Open) -> tuple[m.Row, native.MappedDeviceMemory]:
        answer, fd = self._ask(request, m.Passed)
        try:
            return answer.row, native.MappedDeviceMemory(self._device, fd, answer.row.nbytes)
        finally:
            if fd >= 0:
                os.close(fd)

    def _ask(self, request: Message, wanted: type[A]) -> tuple[A, int]:
        answer, fd = self._exchange(request)
        return self._expected(answer, wanted), fd

    def _expected(self, answer: m.Answer, wanted: type[A]) -> A:
        if isinstance(answer, m.Denied):
            raise ERRORS.get(answer.kind, TransferFailed)(f"{self}: {answer.why}")
        if not isinstance(answer, wanted):
            raise TransferFailed(f"{self} answered {type(answer).__name__} instead of {wanted.__name__}")
        return answer

    def _exchange(self, request: Message) -> tuple[m.Answer, int]:
        """Return the answer and its descriptor, -1 if there is none.

        After an error the socket is closed, unless it is a UsageError: then nothing was sent.
        """
        packet = m.checked(request, str(self))
        deadline = Deadline(self._timeout_s, f"the answer of {self} to {type(request).__name__}")
        if not self._talking.acquire(timeout=self._timeout_s):
            raise DeadlineExceeded(f"{self} was in use by other threads for {self._timeout_s:g} s; ask again")
        try:
            self._sock.settimeout(max(deadline.remaining(), POLL_S))
            self._sock.send(packet)
            return _received(self._sock)
        except TimeoutError:
            self._sock.close()  # an answer that comes later would be taken for the next one's
            raise DeadlineExceeded(f"{deadline.what} did not come within {self._timeout_s:g} s") from None
        except (OSError, TransferFailed) as error:
            self._sock.close()
            raise TransferFailed(
                f"{self} is gone ({error}): what is mapped stays usable, but nobody keeps it beyond this "
                "process; start another holder and allocate there"
            ) from error
        finally:
            self._talking.release()

    def _unusable(self, row: m.Row, why: str) -> NoReturn:
        raise TransferFailed(f"{row.name} of {self} {why}; take the state from another source")


def identity(device: int) -> str:
    """Return a name of a device that all processes share. Raises NativeError if there is no such device."""
    if device == native.HOST_DEVICE:
        return HOST
    devices = native.cuda_devices()
    if not 0 <= device < len(devices):
        raise NativeError(f"there is no CUDA device {device} here, {len(devices)} are seen")
    return devices[device]["uuid"]


def checksum(memory: native.MappedDeviceMemory, stream: int, timeout_s: float) -> int:
    """Return the CRC-32C of the `block_hashes` of the memory, after what is queued on ``stream``."""
    if memory.device == native.HOST_DEVICE:
        hashes = native.block_hashes(memory.address, memory.nbytes)
    else:
        hashes = native.cuda_block_hashes(memory.address, memory.nbytes, stream, timeout_s)
    return native.crc32c(struct.pack(f"<{len(hashes)}Q", *hashes))


def _received(sock: socket.socket) -> tuple[m.Answer, int]:
    fds = array.array("i")
    room = socket.CMSG_SPACE(fds.itemsize)
    body, ancillary, _, _ = sock.recvmsg(m.MAX_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if not body:
            raise TransferFailed("it has hung up")
        answer = m.FROM_HOLDER.decode(body)
        if isinstance(answer, m.Passed) != (len(fds) == 1):
            raise TransferFailed(f"{type(answer).__name__} came with {len(fds)} descriptors")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return answer, fds[0] if fds else -1
