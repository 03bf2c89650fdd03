"""Wishes over the agent's control socket: what is passed on, what is turned away, what comes back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hpresil.base.errors import ConfigError
from hpresil.launch import control
from hpresil.launch.control import Answer, Control, ask
from hpresil.launch.status import NotRunning
from hpresil.membership import endpoint, messages as m

DRAIN = {"verb": "drain", "node": "b"}


class Coordinator:
    """Answers what the agent passes on."""

    def __init__(self, *answers: Answer) -> None:
        self.heard: list[Any] = []
        self._answers = answers
        self.control: Control

    def hears(self, message: m.FromAgent) -> None:
        self.heard.append(message)
        assert isinstance(message, m.NodeDrainRequested | m.ResizeRequested)
        for answer in self._answers:
            self.control.answered(m.Answered(node="a", request=message.request, **answer._asdict()))


@asynccontextmanager
async def agent(directory: Path, *answers: Answer) -> AsyncIterator[Coordinator]:
    coordinator = Coordinator(*answers)
    coordinator.control = Control("a", coordinator.hears)
    (directory / "s").mkdir(mode=0o700)
    (directory / "agent.json").write_text(json.dumps({"control": str(directory / "s" / "c")}))
    async with AsyncExitStack() as stack:
        await coordinator.control.open(directory / "s" / "c", stack)
        yield coordinator


def answers(directory: Path, wish: Any, *given: Answer, timeout_s: float = 5.0) -> tuple[Answer, list[Any]]:
    async def scenario() -> tuple[Answer, list[Any]]:
        async with agent(directory, *given) as coordinator:
            return await asyncio.to_thread(ask, directory, wish, timeout_s), coordinator.heard

    return asyncio.run(scenario())


ACCEPTED = Answer("node b is being drained", done=False, failed=False)
DRAINED = Answer("node b is drained", done=True, failed=False)


def test_a_wish_reaches_the_coordinator_and_its_last_answer_comes_back(tmp_path: Path) -> None:
    answer, heard = answers(tmp_path, DRAIN, ACCEPTED, DRAINED)
    assert answer == DRAINED
    assert heard == [m.NodeDrainRequested(node="a", request=1, target="b")]


def test_a_size_reaches_the_coordinator(tmp_path: Path) -> None:
    refused = Answer("no", done=True, failed=True)
    answer, heard = answers(tmp_path, {"verb": "resize", "workers": 3}, refused)
    assert answer == refused
    assert heard == [m.ResizeRequested(node="a", request=1, workers=3)]


def test_who_does_not_wait_has_the_first_answer(tmp_path: Path) -> None:
    assert answers(tmp_path, DRAIN, ACCEPTED, DRAINED, timeout_s=0)[0] == ACCEPTED


def test_what_is_not_done_in_time_is_told_as_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ASK_S", 0.2)
    assert answers(tmp_path, DRAIN, ACCEPTED, timeout_s=0.2)[0] == ACCEPTED


def test_a_coordinator_that_says_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ASK_S", 0.2)
    with pytest.raises(NotRunning, match="did not answer"):
        answers(tmp_path, DRAIN, timeout_s=0.2)


@pytest.mark.parametrize(
    "wish",
    [
        {},
        [],
        7,
        {"verb": "drain"},
        {"verb": "drain", "node": 3},
        {"verb": "resize", "workers": "3"},
        {"verb": "resize", "workers": 1 << 40},
        {"verb": "stop"},
    ],
)
def test_what_is_no_wish_is_refused_and_not_passed_on(tmp_path: Path, wish: Any) -> None:
    answer, heard = answers(tmp_path, wish)
    assert answer.failed
    assert "that is no wish" in answer.text
    assert heard == []


def test_a_wish_that_is_too_long_is_refused_on_both_sides(tmp_path: Path) -> None:
    long = {"verb": "drain", "node": "x" * control.MAX_WISH_BYTES}
    with pytest.raises(ConfigError, match="too long"):
        answers(tmp_path, long)

    async def scenario() -> bytes:
        async with agent(tmp_path / "other") as coordinator:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "other" / "s" / "c"))
            writer.write(json.dumps(long).encode() * 10 + b"\n")
            told = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            assert coordinator.heard == []
            return told

    (tmp_path / "other").mkdir()
    assert b"it has more than" in asyncio.run(scenario())


def test_a_stranger_hears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "is_same_user", lambda sock: False)
    with pytest.raises(NotRunning):
        answers(tmp_path, DRAIN, ACCEPTED, DRAINED)


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not ready():
            await asyncio.sleep(0.01)


def test_those_who_wait_for_an_answer_are_few_and_leave_room_when_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MAX_ASKING", 1)

    async def scenario() -> None:
        async with agent(tmp_path, ACCEPTED) as coordinator:
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "s" / "c"))
            writer.write(json.dumps(DRAIN).encode() + b"\n")
            await until(lambda: len(coordinator.heard) == 1)
            answer = await asyncio.to_thread(ask, tmp_path, DRAIN, 0)
            assert answer.text == "1 others wait for an answer of this agent already"
            writer.close()
            await until(lambda: not coordinator.control._asking)
            assert await asyncio.to_thread(ask, tmp_path, DRAIN, 0) == ACCEPTED

    asyncio.run(scenario())


def test_the_end_of_the_job_is_an_answer(tmp_path: Path) -> None:
    async def scenario() -> Answer:
        async with agent(tmp_path, ACCEPTED) as coordinator:
            asking = asyncio.create_task(asyncio.to_thread(ask, tmp_path, DRAIN, 5.0))
            await until(lambda: bool(coordinator.heard))
            coordinator.control.over("the job has ended: finished")
            return await asking

    assert asyncio.run(scenario()) == Answer("the job has ended: finished", done=True, failed=True)


def test_without_a_job_there_is_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="does not exist"):
        ask(tmp_path / "none", DRAIN, 1.0)
    with pytest.raises(NotRunning, match="no job runs in"):
        ask(tmp_path, DRAIN, 1.0)
    (tmp_path / "agent.json").write_text(json.dumps({"control": str(tmp_path / "gone"), "pid": os.getpid()}))
    with pytest.raises(NotRunning, match="no job runs in"):
        ask(tmp_path, DRAIN, 1.0)
