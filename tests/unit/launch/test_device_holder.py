"""Device memory that outlives a worker, with host memory for the device's and everything else for real."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from hpresil import native
from hpresil.base.errors import (
    ConfigError,
    DeadlineExceeded,
    GenerationChanged,
    NativeError,
    TransferFailed,
    UsageError,
)
from hpresil.launch import device_holder
from hpresil.launch.held_book import Book, NotGranted, Tenant
from hpresil.launch.run_directory import SocketDirectory
from hpresil.snapshot import HeldPlace, held_messages as m, held_place
from hpresil.snapshot.held_messages import packed

WORKER = Path(__file__).with_name("held_worker.py")
NAMES = ["parameters", "optimizer"]
HOST = native.HOST_DEVICE
END_S = 20.0
ROUNDS = 8
UNIT = 2 << 20


@pytest.fixture
def path():
    directory = SocketDirectory()
    yield directory.path / "holder"
    directory.close()


@pytest.fixture
def holder(path):
    started = device_holder.start(path, HOST)
    yield started
    started.close()
    assert not path.exists()


@pytest.fixture
def inside(path):
    """A holder in this process, which answers when it is told to look."""
    made = device_holder.DeviceHolder(path, HOST)
    yield made
    made.close()


@contextlib.contextmanager
def answering(holder):
    """A holder in this process that looks, in a thread, until the end."""
    end = threading.Event()

    def look():
        while not end.is_set():
            holder.look(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(END_S)
        assert not thread.is_alive()


def at(path, *, place=1, generation=9, timeout_s=END_S):
    return contextlib.closing(
        HeldPlace(path, place=place, generation=generation, device=HOST, timeout_s=timeout_s)
    )


@contextlib.contextmanager
def worker(path, generation=1, point="never"):
    """A worker that changes its memory for ever, or until it kills itself at ``point``."""
    process = subprocess.Popen([sys.executable, WORKER, str(path), str(generation), point])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(ready):
    end = time.monotonic() + END_S
    while not (found := ready()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def holds(memory, version):
    return all((np.frombuffer(one, np.uint8) == version % 251).all() for one in memory.values())


# ------------------------------------------------------------------ a worker that dies


@pytest.mark.parametrize("point", ["allocated", "changed", "parameters written", "optimizer written"])
def test_what_was_half_written_when_a_worker_died_is_not_taken_for_whole(path, holder, point):
    with worker(path, point=point) as dead:
        assert dead.wait(END_S) == -signal.SIGKILL
    with at(path) as place:
        with pytest.raises(TransferFailed, match="not sealed: its writer has not finished or died"):
            place.open_sealed(NAMES)
        memory = {name: place.open(name) for name in NAMES}
        place.seal(77, memory)
        assert place.open_sealed(NAMES).version == 77, "it can be filled anew"


def test_what_a_dead_worker_has_sealed_is_mapped_by_the_next_one(path, holder):
    with worker(path, point="sealed") as dead:
        assert dead.wait(END_S) == -signal.SIGKILL
    with at(path) as place:
        found = place.open_sealed(NAMES, 1002)
        assert holds(found.memory, 1002)
        assert {row.generation for row in place.rows()} == {1}
        with pytest.raises(TransferFailed, match="holds version 1002, not 1003"):
            place.open_sealed(NAMES, 1003)


def test_kills_at_random_moments_leave_one_whole_version_or_none(path, holder):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    chance, files, whole = random.Random(seed), 0, 0
    for generation in range(1, ROUNDS + 1):
        with worker(path, generation) as killed, at(path, place=0) as other:

            def seals(other=other, least=generation * 1000):
                return any(row.version > least for row in other.rows())

            # A worker begins by checking what the one before it has left.
            assert until(seals), f"seed {seed}: worker {generation} found what its predecessor left torn"
            time.sleep(chance.random() * 0.02)
            killed.kill()
            killed.wait()
            versions = {row.version for row in other.rows()}
            assert len(versions) == 1, f"seed {seed}: two versions at once"
            whole += m.UNSEALED not in versions
            left = until(lambda files=files: open_files(holder.process.pid) <= (files or 1 << 20))
            assert left, f"seed {seed}: descriptors of a killed worker are left in the holder"
            files = files or open_files(holder.process.pid)
    print(f"{whole} of {ROUNDS} left a whole version")


# ------------------------------------------------------------------ whose place it is


def test_a_place_belongs_to_a_process_until_it_has_ended(path, holder):
    with worker(path) as stopped:
        with at(path, place=0) as other:
            assert until(lambda: len(other.rows()) == 2)
        stopped.send_signal(signal.SIGSTOP)
        busy = rf"place 1 belongs to process {stopped.pid}, for 1 s; end it with all its children"
        with pytest.raises(DeadlineExceeded, match=busy):
            HeldPlace(path, place=1, generation=9, device=HOST, timeout_s=1.0)
        stopped.kill()
        with at(path) as place:
            assert len(place.rows()) == 2


def test_an_older_generation_is_refused(path, holder):
    with at(path, generation=5) as older:
        with at(path, generation=6) as newer:
            newer.allocate("state", 1)
            with pytest.raises(GenerationChanged, match=r"not process .* of generation 5 any more"):
                older.seal(1, {"state": newer.open("state")})
            assert newer.rows()[0].version == m.UNSEALED
        with pytest.raises(GenerationChanged, match="place 1 is of generation 6 by now"):
            HeldPlace(path, place=1, generation=5, device=HOST)


def test_misuse_is_told(path, holder):
    with at(path) as place:
        memory = place.allocate("state", 100)
        with pytest.raises(UsageError, match="state is there already"):
            place.allocate("state", 100)
        place.seal(3, {"state": memory})
        with pytest.raises(UsageError, match="state is sealed; say that it changes before it does"):
            place.seal(4, {"state": memory})
        with pytest.raises(TransferFailed, match="holds nothing named other"):
            place.change(["state", "other"])
        assert place.open_sealed(["state"]).version == 3, "what is denied changes nothing"
        with pytest.raises(ConfigError, match=r"bytes are held, .* more are too many"):
            place.allocate("large", device_holder.HOST_BYTES)
        place.drop("state")
        assert place.rows() == ()
        memoryview(memory)[:3] = b"abc"  # dropped, and mapped here still


WRONG = [
    (lambda place, memory: place.allocate("layer 1", 10), r"Allocate .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.allocate("x" * 65, 10), r"Allocate .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.allocate("x", 0), r"Allocate .*`int` >= 1 - at `\$\.nbytes`"),
    (lambda place, memory: place.allocate("x", 2.5), r"Allocate .*`int`, got `float` - at `\$\.nbytes`"),
    (lambda place, memory: place.allocate("x", np.int64(1)), r"Allocate .*numpy.int64"),
    (lambda place, memory: place.allocate("x", 1 << 70), r"Allocate .*64"),
    (lambda place, memory: place.allocate("\udc80", 1), r"Allocate .*surrogates"),
    (lambda place, memory: place.open(""), r"Open .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.drop("a b"), r"Drop .*matching regex .*`\$\.name`"),
    (lambda place, memory: place.change([]), r"Change .*length >= 1 - at `\$\.names`"),
    (lambda place, memory: place.change(["state"] * 300), r"Change .*length <= 256 - at `\$\.names`"),
    (lambda place, memory: place.seal(-1, {"state": memory}), r"Seal .*`int` >= 0 - at `\$\.version`"),
    (lambda place, memory: place.seal(1, {}), r"Seal .*length >= 1 - at `\$\.sums`"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_a_value_that_cannot_be_is_told_before_the_holder_hears_of_it(path, inside, wrong, told):
    with answering(inside), at(path) as place:
        memory = place.allocate("state", 100)
        with pytest.raises(UsageError, match=f"place 1 at .* was not asked: {told}"):
            wrong(place, memory)
        place.seal(1, {"state": memory})
        assert [row.version for row in place.rows()] == [1], "the connection is open, and nothing has changed"
    assert not inside.refusals.counts


def test_a_place_or_generation_that_cannot_be_is_told(path, holder):
    with pytest.raises(UsageError, match=r"Attach .*`int` >= 0 - at `\$\.place`"):
        HeldPlace(path, place=-1, generation=0, device=HOST)
    with pytest.raises(UsageError, match=r"Attach .*`int` >= 0 - at `\$\.generation`"):
        HeldPlace(path, place=0, generation=-1, device=HOST)


def test_memory_that_was_written_to_after_its_seal_is_found_out(path, holder):
    with at(path) as place:
        memory = place.allocate("state", 4 << 20)
        place.seal(3, {"state": memory})
        memoryview(memory)[3 << 20] ^= 1
        with pytest.raises(TransferFailed, match="has not the checksum that version 3 was sealed with"):
            place.open_sealed(["state"])


def test_threads_of_a_worker_share_its_place(path, holder):
    failed = []

    def work(place, name):
        try:
            memory = {name: place.allocate(name, 1000)}
            for version in range(50):
                place.change([name])
                place.seal(version, memory)
            assert place.open_sealed([name]).version == 49
        except BaseException as error:
            failed.append(error)

    with at(path) as place:
        threads = [threading.Thread(target=work, args=(place, f"state-{i}")) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(END_S)
    assert not failed


# ------------------------------------------------------------------ a holder that dies


def test_a_holder_that_is_killed_leaves_workers_their_memory_and_a_clear_error(path, holder):
    files = open_files("self")
    with at(path) as place:
        memory = place.allocate("state", 100)
        memoryview(memory)[:3] = b"abc"
        holder.process.kill()
        holder.process.wait()
        with pytest.raises(TransferFailed, match=r"nobody keeps it beyond this process; start another"):
            place.seal(1, {"state": memory})
        assert bytes(memoryview(memory)[:3]) == b"abc"
        with pytest.raises(TransferFailed, match=r"cannot be reached.*start the holder first"):
            HeldPlace(path, place=1, generation=9, device=HOST)
        with contextlib.closing(device_holder.start(path, HOST)), at(path) as again:
            assert again.rows() == ()
    assert open_files("self") == files


def test_a_holder_that_does_not_answer_is_waited_for_no_longer_than_was_said(path, holder):
    with at(path, timeout_s=1.5) as place:
        holder.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match=r"to Allocate did not come within 1\.5 s"):
                place.allocate("state", 100)
            with pytest.raises(TransferFailed, match="is gone"):
                place.rows()
        finally:
            holder.process.send_signal(signal.SIGCONT)


def test_a_holder_dies_with_its_parent(path):
    script = (
        "import sys, time; from pathlib import Path; from hpresil.launch import device_holder\n"
        "print(device_holder.start(Path(sys.argv[1]), -1).process.pid, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()

    def gone():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    assert until(gone)


def test_a_second_holder_and_a_device_that_is_not_there_are_refused(path, holder):
    with pytest.raises(ConfigError, match="there is a device holder at"):
        device_holder.start(path, HOST)
    with pytest.raises(ConfigError, match="memory of device 99 cannot be held"):
        device_holder.start(path.with_name("other"), 99)


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


# ------------------------------------------------------------------ what is mapped


def test_a_tensor_over_the_memory_keeps_it_mapped_and_can_be_a_parameter(path, holder):
    with at(path) as place:
        place.allocate("state", 400)
        memory = place.open("state")
        address = memory.address
        parameter = torch.nn.Parameter(torch.zeros(100))
        parameter.data = torch.frombuffer(memory, dtype=torch.float32)
        del memory
        with torch.no_grad():
            parameter.fill_(1.5)
        assert (np.frombuffer(place.open("state"), np.float32) == 1.5).all()
        assert mapped(address)
        del parameter
        assert not mapped(address)


def mapped(address):
    return f"{address:x}-" in Path("/proc/self/maps").read_text()


def test_host_memory_has_no_cuda_address_and_a_device_that_is_not_there_is_told():
    held = native.HeldMemory(HOST, 100)
    fd = held.export_fd()
    memory = native.MappedDeviceMemory(HOST, fd, 100)
    assert held.allocated_bytes == UNIT
    assert len(memoryview(memory)) == memory.nbytes == 100
    assert not hasattr(memory, "__cuda_array_interface__")
    assert not os.get_inheritable(fd)
    os.close(fd)
    if not native.cuda_devices():
        why = "no NVIDIA driver here" if native.built_with()["cuda"] else "not built with CUDA"
        with pytest.raises(NativeError, match=f"{why}|CUDA_ERROR_NO_DEVICE"):
            native.HeldMemory(0, 100)
