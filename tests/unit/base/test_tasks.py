"""Work that a cancellation must not cut short."""

from __future__ import annotations

import asyncio

import pytest

from hpresil.base.tasks import surely


def test_a_cancellation_takes_effect_after_the_work_however_often_it_comes() -> None:
    async def scenario() -> None:
        may_end, done = asyncio.Event(), list[str]()

        async def work() -> None:
            await may_end.wait()
            done.append("done")

        doing = asyncio.create_task(surely(work()))
        for _ in range(3):
            await asyncio.sleep(0)
            doing.cancel()
            await asyncio.sleep(0)
        assert not doing.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await doing
        assert done == ["done"]

    asyncio.run(scenario())


def test_a_deadline_that_passes_meanwhile_is_a_deadline_and_the_work_is_done() -> None:
    async def scenario() -> None:
        done = list[str]()

        async def work() -> None:
            await asyncio.sleep(0.05)
            done.append("done")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await surely(work())
        assert done == ["done"]

    asyncio.run(scenario())


def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        asyncio.run(surely(work()))
