"""Sockets that a newer generation shuts down, and those that must be left alone."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from hpresil import native
from hpresil.base.errors import NativeError


@pytest.fixture
def page() -> Iterator[native.Page]:
    page = native.Page.create()
    page.hold()
    yield page
    page.give_notice()


@pytest.fixture
def agents(page: native.Page) -> native.Page:
    """The same page as the agent has it mapped."""
    return native.Page.attach(page.fd)


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """One end of a further connection."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(20)
        yield near


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        near.settimeout(20)
        far.settimeout(20)
        yield near, far


def test_a_newer_generation_ends_a_pending_read(page, agents, pair) -> None:
    near, far = pair
    near.settimeout(None)  # a blocking read in the kernel, as a communication library's
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: got.append(near.recv(1)))
    reading.start()
    page.arm_interrupt(1, [near.fileno()])
    agents.set_generation(1)
    assert not got, "the generation it is armed for is not newer"
    agents.set_generation(2)
    reading.join(20)
    assert got == [b""]
    assert far.recv(1) == b"", "the peer hears of it too"
    assert page.disarm_interrupt() is True


def test_arming_after_the_generation_rose_fires_at_once(page, agents, pair) -> None:
    near, _ = pair
    agents.set_generation(9)
    page.arm_interrupt(8, [near.fileno()])
    assert near.recv(1) == b""


def test_a_disarmed_socket_is_left_alone(page, agents, pair) -> None:
    near, far = pair
    page.arm_interrupt(1, [near.fileno()])
    assert page.disarm_interrupt() is False
    agents.set_generation(2)
    far.send(b"x")
    assert near.recv(1) == b"x"


def test_a_new_list_replaces_the_old_one(page, agents, pair, other) -> None:
    near, far = pair
    page.arm_interrupt(1, [near.fileno()])
    page.arm_interrupt(1, [other.fileno()])
    agents.set_generation(2)
    assert other.recv(1) == b""
    far.send(b"x")
    assert near.recv(1) == b"x"


def test_a_reused_descriptor_number_is_left_alone(page, agents, pair, other) -> None:
    near, far = pair
    page.arm_interrupt(1, [other.fileno(), near.fileno()])
    os.dup2(far.fileno(), other.fileno())  # the number now names another connected socket
    agents.set_generation(2)
    assert far.recv(1) == b"", "the list was worked through"
    assert far.send(b"x") == 1, "nobody shut `far` itself down"


def test_a_closed_descriptor_is_passed_over(page, agents, pair, other) -> None:
    near, _ = pair
    page.arm_interrupt(1, [other.fileno(), near.fileno()])
    other.close()
    agents.set_generation(2)
    assert near.recv(1) == b""


def test_listening_sockets_and_files_are_refused(page) -> None:
    refused = pytest.raises(NativeError, match="listens; only connected sockets")
    with socket.create_server(("127.0.0.1", 0)) as server, refused:
        page.arm_interrupt(1, [server.fileno()])
    with pytest.raises(NativeError, match="is no socket"):
        page.arm_interrupt(1, [page.fd])
    with pytest.raises(NativeError, match="Bad file descriptor"):
        page.arm_interrupt(1, [987_654])


def test_a_socket_that_began_to_listen_is_left_alone(page, agents, pair) -> None:
    near, _ = pair
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        page.arm_interrupt(1, [late.fileno(), near.fileno()])
        late.listen()
        agents.set_generation(2)
        assert near.recv(1) == b""
        with socket.create_connection(late.getsockname(), timeout=20):
            connection, _ = late.accept()
            connection.close()
