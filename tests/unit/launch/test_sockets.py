"""The agent's Unix sockets: whatever is said there, it goes on, and what was turned away is counted."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, booleans

from hpresil.launch.links import Links
from hpresil.launch.status import Reporter
from hpresil.membership import messages as m
from hpresil.membership.framing import write_message
from hpresil.membership.refusals import Refusals

LIMIT_S = 30.0
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run to the end; nothing may have reached the event loop's handler of defects."""
    defects: list[dict[str, object]] = []

    def noted(context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), asyncio.CancelledError):  # as the agent does
            defects.append(context)

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noted(context))
        async with asyncio.timeout(LIMIT_S):
            await scenario()

    asyncio.run(bounded())
    assert defects == []


async def throw(path: Path, data: bytes, *, wait: bool = True) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        if wait:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def socket_in(directory: Path) -> Path:
    place = directory / "sockets"
    place.mkdir(mode=0o700, exist_ok=True)
    path = place / "s"
    path.unlink(missing_ok=True)
    return path


class Workers:
    """The one worker that lives is this process."""

    def get(self, worker: int) -> Any:
        return SimpleNamespace(pid=os.getsid(0)) if worker == 0 else None


async def links(directory: Path, scenario: Callable[[Path, list[Any]], Awaitable[None]]) -> Refusals:
    heard: list[Any] = []
    refusals, path = Refusals(), socket_in(directory)
    made = Links(Workers(), lambda w, said: heard.append((w, said)), heard.append, refusals)  # type: ignore[arg-type]
    await made.start(path)
    try:
        await scenario(path, heard)
    finally:
        await made.close()
    return refusals


@FUZZ
@given(data=binary(max_size=300), framed=booleans())
def test_whatever_bytes_come_workers_are_heard(tmp_path: Path, data: bytes, framed: bool) -> None:
    raw = struct.pack(">I", len(data)) + data if framed else data
    counted = []

    async def scenario() -> None:
        async def heard(path: Path, heard: list[Any]) -> None:
            await throw(path, raw)
            _, writer = await asyncio.open_unix_connection(str(path))
            write_message(writer, m.Hello(worker=0, pid=os.getpid()))
            while not heard:
                await asyncio.sleep(0.005)
            writer.close()
            assert heard == [(0, m.Hello(worker=0, pid=os.getpid()))]

        counted.append(await links(tmp_path, heard))

    run(scenario)
    assert sum(counted[0].counts.values()) == 1


def test_an_oversized_frame_ends_its_connection_before_it_is_read(tmp_path: Path) -> None:
    counted = []

    async def scenario() -> None:
        async def heard(path: Path, heard: list[Any]) -> None:
            assert await throw(path, struct.pack(">I", m.MAX_FRAME_BYTES + 1), wait=False) == b""

        counted.append(await links(tmp_path, heard))

    run(scenario)
    assert counted[0].counts == {"no worker": 1}


@FUZZ
@given(data=binary(max_size=100_000))
def test_whatever_bytes_come_the_status_is_told(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        refusals, path = Refusals(), socket_in(tmp_path)
        reporter = Reporter(lambda: {"step": 3, "refused": dict(refusals.counts)}, refusals)
        await reporter.start(path)
        try:
            await throw(path, data, wait=False)
            assert json.loads(await throw(path, b"")) == {"step": 3, "refused": {}}
        finally:
            reporter.close()

    run(scenario)
