"""An agent on its way to the coordinator."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hpresil.base.errors import DeadlineExceeded
from hpresil.launch import network
from hpresil.membership import tls
from hpresil.membership.refusals import Refusals

HOST = "127.0.0.1"


def test_who_waits_for_the_coordinator_says_so_once_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "QUIET_S", 0.1)
    with socket.socket() as sock:
        sock.bind((HOST, 0))  # and nobody listens
        port = sock.getsockname()[1]
        cluster = network.Cluster(
            node="far", rank=1, hosts=False, host=HOST, port=port, address=HOST, nnodes=2, max_nodes=2,
            credentials=tls.from_secret(bytes(32)), connect_timeout_s=0.5,
        )  # fmt: skip
        said: list[str] = []

        async def scenario() -> None:
            async with AsyncExitStack() as stack:
                made = network.Network("far", cluster, Refusals(), said.append)
                await made.connect(Path("unused"), stack)

        with pytest.raises(DeadlineExceeded, match=rf"no coordinator answered at {HOST}:{port} within"):
            asyncio.run(scenario())
    assert said == [f"waiting for the coordinator at {HOST}:{port}, for 0.5 s at most"]
