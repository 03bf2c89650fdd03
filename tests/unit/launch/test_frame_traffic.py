"""What the agent of a newcomer's node does while a frame comes from another node, and the source's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from hpresil.base.errors import TransferFailed
from hpresil.launch.frame_traffic import FrameTraffic, Ways
from hpresil.launch.picture import Picture
from hpresil.membership import messages as m

SOURCE, NEWCOMER, OTHER = 0, 1, 2
AT = {SOURCE: "a", NEWCOMER: "b", OTHER: "a"}


class Fetches:
    """Stands for the other agents: fetches that begin and end when the test says so."""

    def __init__(self) -> None:
        self.open: list[SimpleNamespace] = []
        self.offered: list[tuple[int, int, int]] = []
        self.cancelled = 0
        self.exchange = self.taking = self
        self.nobody_takes_on = asyncio.Event()
        self.nobody_takes_on.set()

    async def fetch(self, address: str, wish: Any, frame: int, begun: Callable[[], None]) -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.open.append(SimpleNamespace(wish=wish, frame=frame, begun=begun, done=done, address=address))
        try:
            return await done
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def pass_on(self, frame: int) -> None:
        await self.nobody_takes_on.wait()

    async def ready(self, generation: int, version: int, frame: int) -> None:
        self.offered.append((generation, version, frame))


async def _grown(frame_bytes: int) -> bool:
    return True


async def _mapped() -> None:
    pass


class Node:
    def __init__(self, name: str) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.said: list[Any] = []
        self.picture = Picture()
        arenas = SimpleNamespace(fds=(0, 0), used=[0, 0], grow=_grown, map_all=_mapped)
        ways: Any = Ways(
            node=name,
            links=SimpleNamespace(send=lambda to, what: self.sent.append((to, what))),  # type: ignore[arg-type]
            client=SimpleNamespace(say=self.said.append),  # type: ignore[arg-type]
            arenas=arenas,  # type: ignore[arg-type]
            picture=self.picture,
            progress=SimpleNamespace(event=lambda *args, **fields: None),  # type: ignore[arg-type]
            terminal=SimpleNamespace(say=lambda text: None),  # type: ignore[arg-type]
            stop=lambda reason: None,
        )
        self.frames = FrameTraffic(ways)
        self.others = Fetches()
        self.frames.peers = self.others  # type: ignore[assignment]

    def decides(self, generation: int, source: int = SOURCE, target: int = 10, store: str = "") -> None:
        """A view and its decision arrive: the newcomer copies from ``source``."""
        self.picture.generation = generation
        self.frames.view()
        self.frames.roster(m.Roster(generation=generation, workers=AT, addresses={"a": "A:1", "b": "B:1"}))
        decision = m.Decision(
            generation=generation, target=target, sources={NEWCOMER: source}, roll=[], slots=[], store=store
        )
        self.picture.decision(decision)
        self.frames.decision(NEWCOMER if self.frames._w.node == "b" else SOURCE, decision, new=True)

    def handed(self) -> list[m.StateReady]:
        return [what for _, what in self.sent if isinstance(what, m.StateReady)]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        defects: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        async with asyncio.timeout(10):
            await scenario()
        assert defects == []

    asyncio.run(bounded())


def _committed(step: int) -> m.Committed:
    return m.Committed(generation=2, step=step, loss="", grad_norm="", samples="ab", state="", world_size=2)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_newcomers_agent_fetches_from_the_sources_node_and_hands_the_frame_on() -> None:
    async def scenario() -> None:
        node = Node("b")
        node.decides(2)
        await settled()
        (fetch,) = node.others.open
        assert (fetch.address, fetch.wish.version, fetch.wish.stored) == ("A:1", 10, False)
        fetch.begun()
        fetch.done.set_result(64)
        await settled()
        assert node.handed() == [m.StateReady(generation=2, version=10, frame=fetch.frame)]
        assert m.FrameSealed(node="b", version=10, frame=fetch.frame) in node.said

    run(scenario)


def test_a_new_view_ends_the_wait_for_a_frame_that_was_promised_in_an_older_one() -> None:
    """Whoever was to fill it may be gone; nobody will offer it for the older generation any more."""

    async def scenario() -> None:
        node = Node("b")
        node.decides(2)
        await settled()
        node.decides(3, source=OTHER)
        await settled()
        assert node.others.cancelled == 1
        assert [fetch.wish.generation for fetch in node.others.open] == [2, 3]
        node.others.open[1].begun()
        node.others.open[1].done.set_result(64)
        await settled()
        assert [ready.generation for ready in node.handed()] == [3]

    run(scenario)


def test_a_frame_that_is_on_its_way_serves_the_next_view_too() -> None:
    async def scenario() -> None:
        node = Node("b")
        node.decides(2)
        await settled()
        node.others.open[0].begun()
        node.decides(3, source=OTHER)
        await settled()
        assert node.others.cancelled == 0
        assert len(node.others.open) == 1
        node.others.open[0].done.set_result(64)
        await settled()
        assert [ready.generation for ready in node.handed()] == [3]

    run(scenario)


def test_a_frame_that_came_from_elsewhere_is_kept_while_others_take_it_on() -> None:
    async def scenario() -> None:
        node = Node("b")
        node.others.nobody_takes_on.clear()
        node.decides(2)
        await settled()
        node.others.open[0].begun()
        node.others.open[0].done.set_result(64)
        await settled()
        came_into = node.others.open[0].frame
        node.frames.restored(NEWCOMER)
        for version in (11, 12, 13):
            node.frames.committed(_committed(version - 1), NEWCOMER)
            for serve in [
                what for _, what in node.sent if isinstance(what, m.Serve) and what.version == version
            ]:
                assert serve.frame != came_into
                sealed = m.Served(generation=2, version=version, frame=serve.frame, frame_bytes=64)
                node.frames.served(NEWCOMER, sealed)
        assert {what.version for _, what in node.sent if isinstance(what, m.Serve)} == {11}
        node.others.nobody_takes_on.set()
        await settled()
        assert [what.frame for _, what in node.sent if isinstance(what, m.Serve)][1:] == [came_into]

    run(scenario)


def test_a_fetch_that_fails_is_told_to_the_coordinator_in_the_newcomers_name() -> None:
    async def scenario() -> None:
        node = Node("b")
        node.decides(2)
        await settled()
        node.others.open[0].done.set_exception(TransferFailed("hung up"))
        await settled()
        (relayed,) = [said for said in node.said if isinstance(said, m.Relayed)]
        assert relayed.worker == NEWCOMER
        assert isinstance(relayed.said, m.RestoreFailed)
        assert "fetching version 10 from node a: hung up" in relayed.said.error

    run(scenario)


def test_a_frame_that_goes_out_is_not_filled_again_not_even_after_a_new_view() -> None:
    async def scenario() -> None:
        node = Node("a")
        node.frames.footprint(m.Footprint(frame_bytes=64))
        await settled()
        node.decides(2)
        node.frames.served(SOURCE, m.Served(generation=2, version=10, frame=0, frame_bytes=64))
        await settled()
        assert node.others.offered == [(2, 10, 0)]
        held = node.frames.hold(0, 10)
        assert held >= 0
        node.decides(3, target=11)
        node.frames.served(SOURCE, m.Served(generation=3, version=11, frame=1, frame_bytes=64))
        node.decides(4, target=12)
        serves = [what for _, what in node.sent if isinstance(what, m.Serve)]
        assert [serve.frame for serve in serves] == [0, 1], "a frame was filled while it went out"
        node.frames.release(held, "b")
        serves = [what for _, what in node.sent if isinstance(what, m.Serve)]
        assert [serve.frame for serve in serves] == [0, 1, 0]
        assert node.frames.hold(0, 10) == -1, "it is being filled with another version"

    run(scenario)


def test_a_frame_for_a_newcomer_abroad_that_had_it_already_is_filled_again() -> None:
    """Its agent had it from an older generation and never asks; snapshots need both frames in turn."""

    async def scenario() -> None:
        node = Node("a")
        node.frames.footprint(m.Footprint(frame_bytes=64))
        await settled()
        node.decides(2)
        node.frames.served(SOURCE, m.Served(generation=2, version=10, frame=0, frame_bytes=64))
        for version in (12, 14):
            node.frames.committed(_committed(version - 1), SOURCE)
            serve = next(what for _, what in reversed(node.sent) if isinstance(what, m.Serve))
            assert serve.version == version
            sealed = m.Served(generation=2, version=version, frame=serve.frame, frame_bytes=64)
            node.frames.served(SOURCE, sealed)
        await settled()

    run(scenario)


def test_the_newest_frame_is_given_out_only_for_its_own_version() -> None:
    async def scenario() -> None:
        node = Node("a")
        assert node.frames.stored(10) == -1
        node.frames.footprint(m.Footprint(frame_bytes=64))
        await settled()
        node.decides(2)
        node.frames.served(SOURCE, m.Served(generation=2, version=10, frame=0, frame_bytes=64))
        assert node.frames.stored(10) == 0
        assert node.frames.stored(9) == -1
        assert node.frames.hold(1, 9) == -1
        await settled()

    run(scenario)
