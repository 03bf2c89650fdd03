"""A connection that has nothing to say is not a lost one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from hpresil.membership import messages as m
from hpresil.runtime import link


def test_an_idle_agent_is_not_lost_and_a_closed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "READ_S", 0.05)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(tmp_path / "agent"))
    server.listen()
    connection = link.AgentLink(str(tmp_path / "agent"), worker=3, pid=1)
    peer, _ = server.accept()
    heard: list[m.ToWorker] = []
    got, lost = threading.Event(), threading.Event()

    def on_message(message: m.ToWorker) -> None:
        heard.append(message)
        got.set()

    connection.start(on_message, lambda why: lost.set())
    assert not lost.wait(0.5), "ten read limits went by in silence"
    peer.sendall(m.encode(m.Drain()))
    assert got.wait(5)
    assert heard == [m.Drain()]
    peer.close()
    assert lost.wait(5)
    connection.close()
    server.close()
