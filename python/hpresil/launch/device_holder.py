"""The device holder: a small process for each GPU whose memory outlives the workers that use it.

The problem: what a worker allocates on its GPU is gone with it, and the agent, which outlives it, creates no
CUDA context. The design, with its alternatives: docs/design/device-memory.md. In short: this process
allocates and never maps, so it needs no context and no error on the device reaches it; workers (`HeldPlace`)
get descriptors and map them; what is whole is written down in a book (`held_book`).

It has one thread and waits for nobody: whoever does not read an answer, or does not say what place it has
come for, is cut off. What it cannot understand is counted, the first of each kind logged. It dies with its
parent if it is told to, and the memory with it as soon as no worker maps it any more.

By hand: ``python -m hpresil.launch.device_holder --device 0 --socket DIRECTORY/holder-0``
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpresil import native
from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError, HpresilError, NativeError, TransferFailed
from hpresil.launch.held_book import Book, NotGranted, Tenant
from hpresil.launch.holder_socket import HolderSocket, clear
from hpresil.membership import endpoint
from hpresil.membership.refusals import Refusals
from hpresil.membership.worker_messages import Message
from hpresil.snapshot import held_messages as m
from hpresil.snapshot.held_place import identity

log = logging.getLogger(__name__)
MAX_VISITORS = 64
ATTACH_S = 10.0
LOOK_S = 1.0
START_S = 60.0
END_S = 5.0
READY = b"ready\n"
HOST_BYTES = 1 << 30
"""What the twin over host memory may hold unless it is told."""


@dataclass(eq=False)
class _Visitor:
    sock: socket.socket
    process: int
    heard: float
    tenant: Tenant | None = None


class DeviceHolder:
    """Holds memory of one device and passes it on.

    Single-threaded. Raises ConfigError if the socket or the device cannot be used.

    Args:
        path: Where to listen; its directory belongs to this user alone.
        device: CUDA's number of the device, or `native.HOST_DEVICE`.
        most_bytes: How much to hold at most; 0: what the device has.
    """

    def __init__(self, path: Path, device: int, most_bytes: int = 0) -> None:
        try:
            self._identity = identity(device)
            # A device which cannot do it is found out now, and how much the least of it takes.
            unit = native.HeldMemory(device, 1).allocated_bytes
        except NativeError as error:
            raise ConfigError(f"memory of device {device} cannot be held: {error}") from error
        if not most_bytes:
            host = device == native.HOST_DEVICE
            most_bytes = HOST_BYTES if host else native.cuda_devices()[device]["memory_bytes"]
        self.refusals = Refusals()
        self._book = Book(partial(native.HeldMemory, device), most_bytes, unit)
        self._visitors: set[_Visitor] = set()
        self._pidfds: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._listening = HolderSocket(path)
        self._selector.register(self._listening.sock, selectors.EVENT_READ, self._accept)

    def look(self, timeout_s: float = LOOK_S) -> None:
        """Answer whoever has said something, once one has or ``timeout_s`` is over."""
        for key, _ in self._selector.select(timeout_s):
            key.data()
        for visitor in [v for v in self._visitors if v.tenant is None and now() - v.heard > ATTACH_S]:
            self._turn_away(visitor, "silent", f"process {visitor.process} took no place")

    def close(self) -> None:
        """Let go of everything."""
        for visitor in list(self._visitors):
            self._hang_up(visitor)
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._selector.close()
        self._listening.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listening.sock.accept()
        except OSError:
            return  # it has gone away again
        sock.setblocking(False)
        process, user = endpoint.peer(sock)
        visitor = _Visitor(sock, process, now())
        self._visitors.add(visitor)
        if user != os.getuid():
            return self._turn_away(visitor, "another user", f"user {user}")
        if len(self._visitors) > MAX_VISITORS:
            return self._turn_away(visitor, "too many", f"more than {MAX_VISITORS} connections")
        if process not in self._pidfds:
            try:
                self._pidfds[process] = os.pidfd_open(process)
            except OSError as error:
                return self._turn_away(visitor, "no process", f"process {process}: {error.strerror}")
            watch = partial(self._process_ended, process)
            self._selector.register(self._pidfds[process], selectors.EVENT_READ, watch)
        self._selector.register(sock, selectors.EVENT_READ, partial(self._hear, visitor))

    def _process_ended(self, process: int) -> None:
        """Its memory is unmapped by now: the kernel says so after it has closed everything."""
        pidfd = self._pidfds.pop(process)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        for visitor in [v for v in self._visitors if v.process == process]:
            self._hang_up(visitor)
        self._book.process_ended(process)

    def _hear(self, visitor: _Visitor) -> None:
        if visitor not in self._visitors:
            return  # hung up a moment ago
        visitor.heard = now()  # who asks again and again for a place that is not free yet is not silent
        try:
            packet = visitor.sock.recv(m.MAX_MESSAGE_BYTES + 1)
        except OSError:
            packet = b""
        if not packet:
            return self._hang_up(visitor)
        try:
            if len(packet) > m.MAX_MESSAGE_BYTES:
                raise TransferFailed(f"a packet of more than {m.MAX_MESSAGE_BYTES} bytes")
            request = m.TO_HOLDER.decode(packet)
        except TransferFailed as error:
            return self._turn_away(visitor, "garbage", str(error))
        try:
            answer, fds = self._granted(visitor, request)
        except NotGranted as error:
            answer, fds = error.answer, []
        except NativeError as error:
            answer, fds = m.Denied(kind="device", why=str(error)), []
        self._answer(visitor, answer, fds)

    def _granted(self, visitor: _Visitor, request: m.Request) -> tuple[Message, list[int]]:
        """Return the answer and the descriptors that go with it. Whatever it raises, nothing has changed."""
        if isinstance(request, m.Look):
            return m.Rows(rows=self._book.rows()), []
        if isinstance(request, m.Attach):
            if visitor.tenant is not None:
                raise NotGranted("misuse", "this connection has a place already")
            tenant = Tenant(visitor.process, request.place, request.generation)
            self._book.attach(tenant)
            visitor.tenant = tenant
            return m.Welcome(device=self._identity), []
        if visitor.tenant is None:
            raise NotGranted("misuse", "a place comes first")
        if isinstance(request, m.Allocate):
            row, fd = self._book.allocate(visitor.tenant, request.name, request.nbytes)
            return m.Passed(row=row), [fd]
        if isinstance(request, m.Open):
            row, fd = self._book.open(visitor.tenant, request.name)
            return m.Passed(row=row), [fd]
        if isinstance(request, m.Change):
            self._book.change(visitor.tenant, request.names)
        elif isinstance(request, m.Seal):
            self._book.seal(visitor.tenant, request.version, request.sums)
        else:
            self._book.drop(visitor.tenant, request.name)
        return m.Done(), []

    def _answer(self, visitor: _Visitor, answer: Message, fds: list[int]) -> None:
        try:
            socket.send_fds(visitor.sock, [m.packed(answer)], fds)
        except OSError as error:
            self._turn_away(visitor, "does not read", f"process {visitor.process}: {error.strerror}")
        finally:
            for fd in fds:
                os.close(fd)

    def _turn_away(self, visitor: _Visitor, kind: str, detail: str) -> None:
        self.refusals.turn_away(kind, detail)
        self._hang_up(visitor)

    def _hang_up(self, visitor: _Visitor) -> None:
        if visitor in self._visitors:
            self._visitors.discard(visitor)
            if visitor.sock in self._selector.get_map():
                self._selector.unregister(visitor.sock)
            visitor.sock.close()


@dataclass
class HolderProcess:
    """A device holder that was started from here."""

    process: subprocess.Popen[bytes]
    path: Path

    def close(self) -> None:
        """End it; memory that is still mapped somewhere stays until it is not."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(ConfigError):  # another one listens there by now
            clear(self.path)


def start(path: Path, device: int, most_bytes: int = 0) -> HolderProcess:
    """Start a device holder that dies with the calling *thread*, and wait until it can be reached.

    Raises:
        ConfigError: It cannot hold memory of this device, or was not up in time; the message says why.
    """
    command = [sys.executable, "-P", "-m", "hpresil.launch.device_holder", "--socket", str(path)]
    command += ["--device", str(device), "--most-bytes", str(most_bytes), "--parent", str(os.getpid())]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        there = select.select([said], [], [], START_S)[0]
        line = said.readline() if there else f"it said nothing for {START_S:g} s".encode()
    if line != READY:
        process.kill()
        process.wait()
        why = line.decode(errors="replace").strip() or "it ended at its start; see its standard error"
        raise ConfigError(f"no device holder for device {device} at {path}: {why}")
    return HolderProcess(process, path)


def main() -> int:
    """Hold memory until a signal, or the parent's end."""
    parser = argparse.ArgumentParser(prog="hpresil.launch.device_holder")
    parser.add_argument("--device", type=int, required=True, help="CUDA's number; -1: host memory, for tests")
    parser.add_argument("--socket", type=Path, required=True, help="in a directory of mode 700")
    parser.add_argument("--most-bytes", type=int, default=0, help="0: what the device has")
    parser.add_argument("--parent", type=int, default=0, help="die with this process, which started this one")
    wanted = parser.parse_args()
    if wanted.parent:
        native.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != wanted.parent:
            return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(format="%(asctime)s device holder: %(message)s")
    try:
        holder = DeviceHolder(wanted.socket, wanted.device, wanted.most_bytes)
    except (HpresilError, OSError) as error:
        print(f"{error}", flush=True)
        return 1
    try:
        os.write(1, READY)
        while True:
            holder.look()
    except KeyboardInterrupt:
        pass
    finally:
        holder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
