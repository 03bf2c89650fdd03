"""Agents without workers, in one process, that lose their coordinator: who is the next one?"""

from __future__ import annotations

import asyncio
from pathlib import Path

from hpresil.launch.lease import Lease
from hpresil.membership import messages as m
from hpresil.membership.peer_messages import Elected
from hpresil.membership.server import Server
from workerless_agents import chief, copied, eventually, run, trained


def test_of_three_agents_the_two_that_are_left_make_a_coordinator_and_keep_their_workers(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        workers, keys = [agent.workers for agent in agents[1:]], [agent.frames_key for agent in agents]
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        new = chief(agents[1:])
        assert new is not None
        assert new.server is not None
        server = new.server
        await eventually(lambda: server.state.phase == "training" and len(server.state.members) == 2)
        assert [agent.workers for agent in agents[1:]] == workers
        assert (server.state.term, server.state.host) == (2, new.name)
        assert server.state.generation >= 1000
        assert server.state.decision is not None
        assert server.state.decision.target == 7
        assert [agent.frames_key for agent in agents[1:]] == keys[1:] == keys[:1] * 2
        for agent in agents[1:]:
            assert agent.term == 2
            await agent.die()

    run(scenario)


def test_an_error_that_was_counted_before_a_takeover_is_not_counted_again(tmp_path: Path) -> None:
    """The copies hold it before its agent is told so, and the agent says it again."""

    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        failed = m.SlotFailed(step=7, slot=0, kind="exception", error="ValueError", traceback="", retry=True)
        client = agents[2].network.client
        client.say(m.Relayed(worker=agents[2].workers[0], said=failed))
        server = agents[0].server
        assert server is not None
        await eventually(lambda: server.state.failures)
        await eventually(lambda: all(copied(agent).failures for agent in agents[1:]))
        assert any(getattr(kept, "said", None) == failed for kept in client._unheard), "told too early"
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        new = chief(agents[1:])
        assert new is not None
        assert new.server is not None
        state = new.server
        await eventually(lambda: state.state.phase == "training")
        await asyncio.sleep(0.1)
        assert [failure.count for failure in state.state.failures] == [1]
        for agent in agents[1:]:
            await agent.die()

    run(scenario)


def test_an_agent_that_came_to_a_coordinator_which_never_began_goes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        wanderer, first = agents[2], agents[0].server
        assert first is not None
        succession = wanderer.network._succession
        assert succession is not None
        assert succession.standing.copy is not None
        beside = agents[1].network._succession
        assert beside is not None
        candidate = Server(
            tmp_path / "candidate" / "c", copied(wanderer), taking_over=("n1", 7, succession.standing.copy)
        )
        await candidate.start()
        beside.peers.joining = candidate.visit
        wanderer.network._told_of(Elected(node="n1", term=7, address=agents[1].network._address))
        await eventually(lambda: wanderer.term == 7)  # the candidate may count on it
        assert not await candidate.begun()
        await candidate.close()
        await eventually(lambda: wanderer.term == 1 and len(first.state.nodes) == 3)
        for agent in agents:
            await agent.die()

    run(scenario)


def test_one_of_three_makes_no_coordinator_and_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        await agents[0].die()
        await agents[1].die()
        await asyncio.sleep(4.0)  # longer than an election and its patience
        assert agents[2].server is None
        assert agents[2].workers
        await agents[2].die()

    run(scenario)


def test_of_two_agents_the_one_that_is_left_needs_the_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 2, lease=tmp_path / "lease")
        await agents[0].die()
        await eventually(lambda: chief(agents[1:]))
        assert not Lease(tmp_path / "lease").take()
        await agents[1].die()
        assert Lease(tmp_path / "lease").take()

    run(scenario)


def test_while_the_coordinator_holds_the_lease_nobody_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 2, lease=tmp_path / "lease")
        first = agents[0].lease
        assert first is not None
        agents[0].lease = None  # it dies, but its lock is not free yet
        await agents[0].die()
        await asyncio.sleep(2.0)
        assert chief(agents[1:]) is None
        first.release()
        await eventually(lambda: chief(agents[1:]))
        await agents[1].die()

    run(scenario)


def test_an_agent_whose_connection_breaks_comes_back_without_its_workers(tmp_path: Path) -> None:
    async def scenario() -> None:
        agents = await trained(tmp_path, 3)
        server = agents[0].server
        assert server is not None
        old = agents[2].workers
        agents[2].network.client.leave()
        await eventually(lambda: agents[2].workers and agents[2].workers != old)
        await eventually(lambda: len(server.state.nodes) == 3)
        assert server.state.term == 1
        assert not set(old) & set(server.state.workers)
        for agent in agents:
            await agent.die()

    run(scenario)
