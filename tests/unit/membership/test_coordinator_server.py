"""The coordinator over a real Unix socket: order, durability, and everything that is not a message."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest
from at_the_coordinator import FACTS, agent, ends, first_view, run, say, serving, until, whole_job

from hpresil.base.deadline import now as monotonic
from hpresil.base.errors import ConfigError, DeadlineExceeded
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.membership.framing import write_message
from hpresil.membership.journal import Journal, replay
from hpresil.membership.server import Server
from hpresil.membership.state import Settings, State, begin


def test_a_job_runs_over_the_socket_and_its_journal_leads_to_the_same_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen: list[State] = []
        async with serving(tmp_path, journal_path=tmp_path / "journal", on_state=seen.append) as server:
            async with agent(server) as client:
                assert (await whole_job(client)).status == 0
            assert seen[-1] == server.state
            assert [state.phase for state in seen][-1] == "ended"
            found = replay(tmp_path / "journal")
            assert found.state == server.state

    run(scenario)


def test_a_view_is_durable_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = Journal.sync

    def counted(journal: Journal) -> None:
        sync(journal)
        synced.append(replay(journal.path).state.generation)

    monkeypatch.setattr(Journal, "sync", counted)

    async def scenario() -> None:
        async with serving(tmp_path, journal_path=tmp_path / "journal") as server, agent(server) as client:
            await first_view(client)
            assert synced[-1] == 1

    run(scenario)


def test_the_store_answers_members_of_the_current_generation_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, journal_path=tmp_path / "journal") as server, agent(server) as client:
            await first_view(client)
            say(client, 0, m.StoreGet(request=5, generation=1, keys=["a"]))
            say(client, 2, m.StoreSet(generation=1, key="a", value=b"of a spare"))
            say(client, 1, m.StoreSet(generation=0, key="a", value=b"old"))
            say(client, 1, m.StoreSet(generation=1, key="a", value=b"new"))
            assert await until(client, m.StoreValues, 0) == m.StoreValues(request=5, values=[b"new"])
            assert server.refused == {"store of a non-member": 1, "store": 1}
            assert b"of a spare" not in (tmp_path / "journal").read_bytes()

    run(scenario)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack(">I", m.MAX_FRAME_BYTES + 1) + bytes(100),
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 5) + b"\x80abc",
        m.encode(m.Drain()),
        m.encode(m.AgentJoined(node="host", pid=1))[:-3],
    ],
    ids=["http", "oversized", "largest", "garbage", "other-direction", "partial"],
)
def test_what_is_no_message_closes_its_connection_and_nothing_else(tmp_path: Path, garbage: bytes) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server, agent(server) as client:
            await until(client, m.StartWorker)
            for count in range(1, 4):
                reader, writer = await asyncio.open_unix_connection(str(server.path))
                writer.write(garbage)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
                assert server.refused["invalid frame"] == count
            assert (await whole_job(client)).status == 0

    run(scenario)


def test_an_agent_that_sends_garbage_later_loses_its_connection_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server:
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            writer.write(m.encode(m.AgentJoined(node="host", pid=1)) + b"\xff" * 40)
            await reader.read()
            writer.close()
            await writer.wait_closed()
            assert server.refused["invalid frame"] == 1
            async with agent(server) as client:  # its first three workers went with the connection
                assert (await whole_job(client, workers=(3, 4))).status == 0

    run(scenario)


def test_refusals_are_logged_once_for_each_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server:
            for _ in range(5):
                reader, writer = await asyncio.open_unix_connection(str(server.path))
                writer.write(b"\xff" * 40)
                await reader.read()
                writer.close()
                await writer.wait_closed()

    run(scenario)
    assert len(caplog.records) == 1
    assert "invalid frame" in caplog.text


def test_only_one_agent_speaks_for_a_node_and_only_after_it_has_said_who_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server, agent(server) as first:
            await until(first, m.StartWorker)
            async with agent(server) as second:
                with pytest.raises(AssertionError):
                    await until(second, m.StartWorker)
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            write_message(writer, m.DrainRequested(why="mischief"))
            assert await reader.read() == b""
            writer.close()
            assert server.refused == {"second agent": 1, "no introduction": 1, "store": 0}
            assert server.state.draining == ""
            async with agent(server, node="other") as other:
                other.say(m.WorkerLost(worker=0, reason="killed"))
                other.say(m.DrainRequested(why="allowed"))
                await until(first, m.JobEnded)
            assert server.refused["foreign worker"] == 1
            assert 0 in server.state.workers

    run(scenario)


def test_deadlines_pass_without_any_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = begin(Settings(workers=1, join_timeout_s=0.1), monotonic())
        server = Server(tmp_path / "sockets" / "c", state, tick_s=0.02)
        await server.start()
        async with agent(server) as client:
            ended = await until(client, m.JobEnded)
        await server.close()
        assert isinstance(ended, m.JobEnded)
        assert ended.status == 1

    run(scenario)


def test_a_disk_that_fails_ends_the_job_and_no_decision_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, journal_path=tmp_path / "journal") as server, agent(server) as client:
            await until(client, m.StartWorker)

            def full(journal: Journal) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(Journal, "sync", full)
                for worker in range(2):
                    say(client, worker, m.Ready(facts=FACTS))
                told = [action async for action in ends(client)]
            assert not any(
                isinstance(action, m.Deliver) and isinstance(action.what, m.View) for action in told
            )
            assert isinstance(told[-1], m.JobEnded)
            assert told[-1].status == 1
            assert "journal cannot be written: No space left on device; make room there" in told[-1].reason
            assert replay(tmp_path / "journal").state.phase != "ended"

    run(scenario)


def test_the_socket_is_for_this_user_only_and_goes_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as server:
            assert server.path.stat().st_mode & 0o777 == 0o600
            assert server.path.parent.stat().st_mode & 0o777 == 0o700
        assert not server.path.exists()
        await server.close()

    run(scenario)


def test_a_directory_open_to_others_and_a_path_too_long_are_refused(tmp_path: Path) -> None:
    state = begin(Settings(workers=1), monotonic())
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="mode 755"):
        run(Server(tmp_path / "c", state).start)
    with pytest.raises(ConfigError, match="at most 107"):
        run(Server(tmp_path / ("x" * 120), state).start)


def test_nobody_listening_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded, match=str(tmp_path / "none")):
            await Client().connect(tmp_path / "none", timeout_s=0.1)

    run(scenario)


def test_closing_with_open_connections_is_no_defect(tmp_path: Path) -> None:
    async def scenario() -> None:
        defects: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with serving(tmp_path) as server, agent(server) as client:
            await until(client, m.StartWorker)
            _, silent = await asyncio.open_unix_connection(str(server.path))
            await asyncio.sleep(0)
            await server.close()
            assert [action async for action in client if isinstance(action, m.JobEnded)] == []
            silent.close()
            await silent.wait_closed()
        assert defects == []
        assert len(asyncio.all_tasks()) == 1

    run(scenario)
