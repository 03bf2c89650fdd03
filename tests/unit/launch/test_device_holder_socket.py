"""What comes to a device holder's socket, and what its book says to it."""

import contextlib
import os
import socket

import msgspec
import pytest

from device_holders import (
    END_S,
    HOST,
    UNIT,
    answering,
    at,
    open_files,
)
from hpresil import native
from hpresil.base.errors import (
    ConfigError,
    NativeError,
)
from hpresil.launch import device_holder
from hpresil.launch.held_book import Book, NotGranted, Tenant
from hpresil.snapshot import HeldPlace, held_messages as m, held_place
from hpresil.snapshot.held_messages import packed

# ------------------------------------------------------------------ what comes to its socket


def stranger(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(END_S)
    sock.connect(str(path))
    return sock


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        bytes(range(256)),
        packed(m.Allocate(name="../x y", nbytes=1)),
        packed(m.Attach(place=-1, generation=0)),
        msgspec.msgpack.encode({"type": "Seal", "version": 1, "sums": {}}),
        b"\x80" * (m.MAX_MESSAGE_BYTES + 9),
    ],
)
def test_garbage_is_counted_and_cut_off(path, inside, packet):
    with stranger(path) as sock:
        sock.send(packet)
        inside.look()
        inside.look()
        assert sock.recv(100) == b""
    assert dict(inside.refusals.counts) == {"garbage": 1}


def test_what_a_stranger_passes_is_not_kept_and_the_next_one_is_answered(path, inside):
    with stranger(path) as bad, stranger(path) as good:
        inside.look()
        inside.look()
        files = open_files("self")
        socket.send_fds(bad, [b"garbage"], [bad.fileno()] * 9)
        socket.send_fds(good, [packed(m.Look())], [good.fileno()] * 9)
        while not inside.refusals.counts:
            inside.look()
        inside.look(0.1)
        assert m.FROM_HOLDER.decode(good.recv(1000)) == m.Rows(rows=())
        assert open_files("self") == files - 1, "the bad one is closed, and nothing else is open"


def test_nothing_is_granted_without_a_place(path, inside):
    with stranger(path) as sock:
        sock.send(packed(m.Allocate(name="state", nbytes=1)))
        inside.look()
        inside.look()
        assert m.FROM_HOLDER.decode(sock.recv(1000)) == m.Denied(kind="misuse", why="a place comes first")


def test_who_is_silent_or_does_not_read_or_is_one_too_many_is_cut_off(path, inside, monkeypatch):
    with stranger(path) as sock:
        packet = packed(m.Look())
        while not inside.refusals.counts["does not read"]:
            with contextlib.suppress(BrokenPipeError):
                sock.send(packet)
            inside.look(0.1)
    monkeypatch.setattr(device_holder, "MAX_VISITORS", 1)
    with stranger(path) as first, stranger(path) as second:
        inside.look()
        inside.look()
        assert second.recv(1) == b""
        monkeypatch.setattr(device_holder, "ATTACH_S", 0.0)
        inside.look(0.01)
        assert first.recv(1) == b""
    monkeypatch.setattr(device_holder.endpoint, "peer", lambda sock: (os.getpid(), os.getuid() + 1))
    with stranger(path) as foreign:
        inside.look()
        assert foreign.recv(1) == b""
    assert dict(inside.refusals.counts) == {"does not read": 1, "too many": 1, "silent": 1, "another user": 1}


def test_the_holder_of_another_device_is_refused(path, holder, monkeypatch):
    monkeypatch.setattr(held_place, "identity", lambda device: "GPU-1")
    with pytest.raises(ConfigError, match="holds memory of host, this worker uses GPU-1"):
        HeldPlace(path, place=1, generation=9, device=HOST)


def test_allocations_are_few():
    book = Book(lambda nbytes: native.HeldMemory(HOST, nbytes), 1 << 40, UNIT)
    one, other = Tenant(1, 0, 0), Tenant(2, 1, 0)
    for tenant in (one, other):
        book.attach(tenant)
    for number in range(m.MAX_ALLOCATIONS):
        os.close(book.allocate(one, f"state-{number}", 1)[1])
    with pytest.raises(NotGranted, match="let tensors share one"):
        book.allocate(other, "state", 1)
    book.process_ended(2)
    assert len(packed(m.Rows(rows=book.rows()))) < m.MAX_MESSAGE_BYTES


def test_what_is_held_is_counted_as_it_is_allocated():
    book, tenant = Book(lambda nbytes: native.HeldMemory(HOST, nbytes), 5 * UNIT - 1, UNIT), Tenant(1, 0, 0)
    book.attach(tenant)
    os.close(book.allocate(tenant, "first", UNIT + 1)[1])
    os.close(book.allocate(tenant, "second", UNIT + 1)[1])
    with pytest.raises(NotGranted, match=f"{4 * UNIT} of {5 * UNIT - 1} bytes are held, {UNIT} more"):
        book.allocate(tenant, "third", 1)
    assert [row.name for row in book.rows()] == ["first", "second"]


def test_memory_that_cannot_be_passed_on_is_denied_and_not_entered(path, monkeypatch):
    failed, real, files = [], native.HeldMemory, open_files("self")

    class Unpassable:
        """Memory whose export fails, as long as ``failing`` says so."""

        failing = True

        def __init__(self, device, nbytes):
            self.held = real(device, nbytes)
            self.allocated_bytes = self.held.allocated_bytes

        def export_fd(self):
            if self.failing:
                failed.append(self)
                raise NativeError("injected: it cannot be exported")
            return self.held.export_fd()

    monkeypatch.setattr(native, "HeldMemory", Unpassable)
    inside = device_holder.DeviceHolder(path, HOST)
    with contextlib.closing(inside), answering(inside), at(path) as place:
        with pytest.raises(NativeError, match="injected"):
            place.allocate("state", 100)
        assert place.rows() == (), "what is denied has changed nothing"
        Unpassable.failing = False
        memory = place.allocate("state", 100)
        place.seal(1, {"state": memory})
        Unpassable.failing = True
        with pytest.raises(NativeError, match="injected"):
            place.open("state")
        assert [row.version for row in place.rows()] == [1]
        failed_first, failed_later = failed
        assert failed_first is not failed_later, "the injected failures happened"
    failed.clear()
    del failed_first, failed_later, memory, place, inside
    assert open_files("self") == files
