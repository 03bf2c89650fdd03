"""An agent on its way to the coordinator."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hpresil.base.errors import DeadlineExceeded
from hpresil.launch import network, whereabouts
from hpresil.launch.cluster import Cluster
from hpresil.membership import tls
from hpresil.membership.client import Client
from hpresil.membership.refusals import Refusals

HOST = "127.0.0.1"


def cluster(port: int, connect_timeout_s: float) -> Cluster:
    return Cluster(
        node="far", rank=1, hosts=False, host=HOST, port=port, address=HOST, nnodes=2, max_nodes=2,
        credentials=tls.from_secret(bytes(32)), connect_timeout_s=connect_timeout_s,
    )  # fmt: skip


def test_who_waits_for_the_coordinator_says_so_once_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "QUIET_S", 0.1)
    with socket.socket() as sock:
        sock.bind((HOST, 0))  # and nobody listens
        port = sock.getsockname()[1]
        said: list[str] = []

        async def scenario() -> None:
            async with AsyncExitStack() as stack:
                made = network.Network("far", cluster(port, 0.5), Refusals())
                await made.connect(Path("unused"), tmp_path, said.append, stack)

        with pytest.raises(DeadlineExceeded, match=rf"no coordinator answered at {HOST}:{port} within"):
            asyncio.run(scenario())
    assert said == [f"waiting for the coordinator at {HOST}:{port}, for 0.5 s at most"]


def test_a_coordinator_that_nobody_hosts_is_an_error_that_says_what_to_look_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as sock:
            sock.bind((HOST, 0))
            port = sock.getsockname()[1]
        with pytest.raises(DeadlineExceeded) as caught:
            await whereabouts.call(Client(), cluster(port, 0.3), tmp_path)
        assert f"no coordinator answered at {HOST}:{port} within 0.3 s" in str(caught.value)
        assert "refused" in str(caught.value).lower()
        assert f"let port {port} through the firewalls" in str(caught.value)

    asyncio.run(scenario())


def test_a_firewall_that_drops_what_is_sent_is_waited_for_no_longer_than_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket() as full, socket.socket() as first:
            full.bind((HOST, 0))
            full.listen(0)  # once its queue is full, the kernel drops what comes
            port = full.getsockname()[1]
            first.connect((HOST, port))
            began = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s \(no answer\)"):
                await whereabouts.call(Client(), cluster(port, 0.5), tmp_path)
            assert asyncio.get_running_loop().time() - began < 3.0

    asyncio.run(scenario())
