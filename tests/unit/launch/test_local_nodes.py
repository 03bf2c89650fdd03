"""Several agents of one machine: what they share."""

from __future__ import annotations

import socket

import pytest

from hpresil.launch.local_nodes import LOOPBACK, _reserved_port


def test_the_port_of_the_coordinator_is_kept_for_it() -> None:
    with _reserved_port() as reserved:
        port = reserved.getsockname()[1]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port))
        with socket.create_server((LOOPBACK, port)), socket.create_connection((LOOPBACK, port), timeout=5):
            pass
