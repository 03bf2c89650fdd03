"""A TLS connection that is cut already may be closed, and what comes after that still works."""

from __future__ import annotations

import asyncio
import gc

import pytest
from at_the_door import HOST, OURS, door, eventually, run

from hpresil.membership.door import call
from hpresil.membership.framing import close_once

MEMBER_S = 5.0


@pytest.mark.parametrize("cut_by", ["us", "the other end"])
def test_a_visit_that_closes_what_is_cut_already_is_no_defect(cut_by: str) -> None:
    ended = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if cut_by == "us":
            writer.transport.abort()
        while not writer.is_closing():
            writer.write(b"is anybody there?")
            await asyncio.sleep(0.01)
        close_once(writer)
        ended.append(writer.get_extra_info("peername"))

    async def scenario() -> None:
        async with door(visit) as (port, _):
            _, writer = await call(HOST, port, OURS, MEMBER_S)
            writer.transport.abort()
            await eventually(lambda: bool(ended))
            await asyncio.sleep(0.05)
            gc.collect()

    run(scenario)
