"""What a recovery does not need waits for it, and not for long."""

import asyncio
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpresil.launch import calm
from hpresil.launch.calm import Calm


@contextmanager
def session():
    """A process in a session of its own: to the kernel's scheduler it makes no difference that it lives."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def shares(pid):
    """Return the priority of the process, and that of its session if the kernel has such."""
    try:
        session = int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    except OSError:
        session = None
    return os.getpriority(os.PRIO_PROCESS, pid), session


def is_aside(pid):
    own, session = shares(pid)
    lowest = calm.LOWEST_NICE if calm.may_raise() else calm.KEPT_NICE
    return own == lowest and session in (calm.LOWEST_NICE, None)


def has_usual_share(pid):
    own, session = shares(pid)
    return own == (0 if calm.may_raise() else calm.KEPT_NICE) and session in (0, None)


def test_a_dying_process_steps_aside_until_all_members_have_committed():
    async def scenario():
        quiet = Calm()
        with session() as pid:
            quiet.lost()
            quiet.step_aside(pid)
            quiet.view([0, 2])
            assert is_aside(pid)
            quiet.committed(0)
            assert is_aside(pid), "worker 2 still computes"
            quiet.committed(2)
            assert has_usual_share(pid)
        quiet.close()

    asyncio.run(scenario())


def test_without_a_recovery_nobody_steps_aside():
    async def scenario():
        with session() as pid:
            quiet = Calm()
            quiet.step_aside(pid)
            assert shares(pid)[0] == 0
            quiet.lost()
            quiet.view([])  # no member is left on this node
            quiet.step_aside(pid)
            assert shares(pid)[0] == 0

    asyncio.run(scenario())


def test_a_recovery_that_takes_long_holds_nothing_back_any_more(monkeypatch):
    monkeypatch.setattr(calm, "LONGEST_S", 0.05)

    async def scenario():
        quiet = Calm()
        with session() as pid:
            quiet.lost()
            quiet.view([0])
            quiet.step_aside(pid)
            async with asyncio.timeout(10):
                while not has_usual_share(pid):
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_share_that_the_kernel_does_not_give_back_yet_is_asked_for_again(monkeypatch):
    """The kernel takes a change of a session's share only every 0.1 s from an unprivileged process."""
    monkeypatch.setattr(calm, "AGAIN_S", 0.01)
    asked = []

    def reluctant(group, nice):
        asked.append((group, nice))
        return len(asked) > 3

    monkeypatch.setattr(calm, "set_share", reluctant)

    async def scenario():
        quiet = Calm()
        quiet.lost()
        quiet.view([0])
        quiet.step_aside(12345)
        quiet.committed(0)
        async with asyncio.timeout(10):
            while len(asked) < 4:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert asked == [(12345, 19), (12345, 0), (12345, 0), (12345, 0)]

    asyncio.run(scenario())


def test_a_new_process_waits_for_the_recovery_and_for_the_memory():
    async def scenario():
        quiet = Calm()
        await asyncio.wait_for(quiet.wait(), 1)
        with session() as pid:
            quiet.lost()
            quiet.step_aside(pid)
            quiet.view([0])
            waiting = asyncio.create_task(quiet.wait())
            await asyncio.sleep(0.02)
            assert not waiting.done(), "the recovery is under way"
            quiet.committed(0)
            await asyncio.sleep(0.02)
            assert not waiting.done(), "the memory is not free"
            quiet.reaped(pid)
            await asyncio.wait_for(waiting, 1)
        quiet.close()

    asyncio.run(scenario())


def test_a_new_process_that_a_recovery_waits_for_does_not_wait_for_it():
    async def scenario():
        quiet = Calm()
        quiet.view([0, 1])
        quiet.lost()  # and no view follows: there are too few
        await asyncio.wait_for(quiet.wait(), 1)
        quiet.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("pid", [2**22 + 1])
def test_a_process_that_is_gone_is_no_error(pid):
    assert calm.set_share(pid, 19)
