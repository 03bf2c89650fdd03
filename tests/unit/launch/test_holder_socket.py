"""The socket file of a device holder: whose it is, and who may remove it."""

import contextlib
import os
import socket
import time

import pytest

from hpresil import native
from hpresil.base.errors import ConfigError
from hpresil.launch import device_holder
from hpresil.launch.holder_socket import HolderSocket
from hpresil.launch.run_directory import SocketDirectory

END_S = 20.0


@pytest.fixture
def path():
    directory = SocketDirectory()
    yield directory.path / "holder"
    directory.close()


def bound(path, kind=socket.SOCK_SEQPACKET, backlog=8):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    sock.listen(backlog)
    return sock


def test_what_is_no_socket_is_left_as_it_is(path):
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket and is left as it is; choose another path"):
        HolderSocket(path)
    with pytest.raises(ConfigError, match="is no socket"):
        device_holder.start(path, native.HOST_DEVICE)
    assert path.read_text() == "precious"
    other = path.with_name("other")
    other.symlink_to(path)
    with pytest.raises(ConfigError, match="is no socket"):
        HolderSocket(other)
    assert other.is_symlink()
    assert path.read_text() == "precious"


def test_the_socket_of_a_dead_holder_is_replaced(path):
    bound(path).close()
    assert path.is_socket()
    with contextlib.closing(HolderSocket(path)), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
    assert not path.exists()


def test_a_socket_of_something_else_is_left_alone(path):
    with bound(path, socket.SOCK_STREAM), pytest.raises(ConfigError, match="cannot be used for a"):
        HolderSocket(path)
    assert path.is_socket()
    path.unlink()


def test_a_stopped_holder_whose_queue_is_full_is_not_waited_for(path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(bound(path, backlog=1))
        full = False
        while not full:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.setblocking(False)
            try:
                sock.connect(str(path))
            except BlockingIOError:
                full = True
        begun = time.monotonic()
        with pytest.raises(ConfigError, match="there is a device holder at"):
            HolderSocket(path)
        assert time.monotonic() - begun < END_S
        assert path.is_socket()


def test_a_holder_that_ends_leaves_the_socket_of_the_one_after_it(path):
    first = HolderSocket(path)
    os.unlink(path)
    with contextlib.closing(HolderSocket(path)):
        first.close()
        assert path.is_socket()
    assert not path.exists()


def test_who_ends_a_killed_holder_leaves_the_socket_of_the_one_after_it(path):
    first = device_holder.start(path, native.HOST_DEVICE)
    first.process.kill()
    first.process.wait()
    with contextlib.closing(device_holder.start(path, native.HOST_DEVICE)):
        first.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(path))
    assert not path.exists()
