"""How state moves through the agent's memory: frames that workers fill and read, and that other nodes fetch.

On the source's node a frame is filled by the source, then read by newcomers there and sent to the nodes of
the others. On a newcomer's node without a source, this agent takes the source's place: it fetches the frame
from the source's node. A message about state never overtakes the decision it follows from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from hpresil.base import spans
from hpresil.base.errors import ConfigError, NativeError, TransferFailed
from hpresil.launch.arena import AGENT, Action, FrameBook, Serve
from hpresil.launch.links import Links
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle
from hpresil.launch.terminal import Terminal
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.membership.peer_messages import Fetch

STORE = -2
"""As a source: the newest sealed frame of another node's agent."""
_FIRST_HOLD = -2
"""Below this are the numbers that stand for transfers among a frame's readers; workers' are not negative."""


@dataclass(frozen=True)
class Ways:
    """What the traffic goes through."""

    node: str
    links: Links
    client: Client
    arenas: Arenas
    picture: Picture
    progress: Chronicle
    terminal: Terminal
    stop: Callable[[str], None]


class FrameTraffic:
    """The frames of one node."""

    def __init__(self, ways: Ways) -> None:
        self._w = ways
        self._book = FrameBook(len(ways.arenas.fds))
        self.peers: Peers | None = None
        self._roster: m.Roster | None = None
        self._store = ""
        self._told: set[int] = set()  # members that have been sent the decision of this generation
        self._held_back: dict[int, list[m.ToWorker]] = {}
        self._abroad: dict[str, set[int]] = {}  # by node, who waits there for a frame of ours
        self._asked: dict[Serve, asyncio.Task[None]] = {}  # fetches of which nothing has come yet
        self._holds = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ what workers say

    def footprint(self, message: m.Footprint) -> None:
        """A worker says how large its state is."""
        self._later(self._grow(message.frame_bytes))

    async def _grow(self, frame_bytes: int) -> None:
        begin_ns = spans.clock()
        try:
            grown = await self._w.arenas.grow(frame_bytes)
            spans.add("grow frames", begin_ns, value=frame_bytes)
        except ConfigError as error:
            self._w.stop(str(error))
            return
        if grown:
            self._perform(self._book.grown(True))
            if self.peers is not None:  # now, and not when another node waits for one of them
                with suppress(NativeError):  # it is tried again then
                    await self._w.arenas.map_all()

    def committed(self, message: m.Committed, worker: int) -> None:
        """A worker has committed a step of which a snapshot is wanted."""
        # Another version takes a frame's place only after a step of everybody, newcomers too: who has not
        # asked for the frame by then never will, since its own agent had that version already.
        self._let_everybody_go()
        self._perform(self._book.snapshot(message.generation, message.step + 1, worker))

    def served(self, worker: int, message: m.Served, reader: int | None = None) -> None:
        """A frame was filled; ``reader`` reads it from now on."""
        where = message.generation, message.version, message.frame
        newest, actions = self._book.served(worker, *where, reader)
        if newest:
            self._w.arenas.used[message.frame] = message.frame_bytes
            self._w.client.say(m.FrameSealed(node=self._w.node, version=message.version, frame=message.frame))
            self._w.progress.event(
                "FrameSealed",
                version=message.version,
                frame=message.frame,
                frame_bytes=message.frame_bytes,
                worker=worker,
            )
        self._perform(actions)

    def serve_failed(self, worker: int, generation: int, frame: int) -> None:
        """A frame was not filled."""
        self._perform(self._book.serve_failed(worker, generation, frame))

    def restored(self, worker: int) -> None:
        """A newcomer has read its frame."""
        self._perform(self._book.read_done(worker))

    def restore_failed(self, worker: int, message: m.RestoreFailed) -> None:
        """A newcomer could not read its frame."""
        before = self._book.newest
        self._perform(self._book.read_failed(worker, message.frame))
        if before is not None and self._book.newest is None:
            self._w.client.say(m.FrameSealed(node=self._w.node, version=-1, frame=-1))
        self._w.terminal.say(f"{self._w.picture.name(worker)} could not copy the state: {message.error}")

    def gone(self, worker: int) -> bool:
        """A worker is gone; return whether a frame waits for the kernel to be done with it."""
        self._held_back.pop(worker, None)
        self._perform(self._book.lost(worker))
        return self._book.awaits(worker)

    def reaped(self, worker: int) -> None:
        """The kernel has finished with a worker."""
        self._perform(self._book.reaped(worker))

    # ------------------------------------------------------------------ what the coordinator says

    def roster(self, roster: m.Roster) -> None:
        """Learn where everybody is."""
        self._roster = roster

    def view(self) -> None:
        """A new view: nobody abroad waits for an older one's frame, and we for none from abroad.

        What is on its way goes on: the version may be wanted again.
        """
        self._told, self._held_back = set(), {}
        asked, self._asked = self._asked, {}
        for action, fetch in asked.items():
            fetch.cancel()
            self.serve_failed(action.worker, action.generation, action.frame)
        self._let_everybody_go()

    def decision(self, to: int, decision: m.Decision, *, new: bool) -> None:
        """Pass a decision on, then what follows from it."""
        self._w.links.send(to, decision)
        self._told.add(to)
        for message in self._held_back.pop(to, []):
            self._w.links.send(to, message)
        if new:
            self._store = decision.store
            if any(self._node_of(s) != self._w.node for s in decision.sources.values()):
                self._perform(self._book.grown(True))  # fetching makes room for what comes
            sources = {w: s for w, s in self._sources(decision).items() if s is not None}
            self._perform(
                self._book.decided(decision.generation, decision.target, sources, initial=decision.initial)
            )

    def _sources(self, decision: m.Decision) -> Mapping[int, int | None]:
        """Return the copies that concern this node, with the source as the book here sees it."""
        found: dict[int, int | None] = {}
        for newcomer, source in decision.sources.items():
            at = decision.store if source == AGENT else self._node_of(source)
            here, of_ours = self._node_of(newcomer) == self._w.node, at in (self._w.node, "")
            if of_ours:
                found[newcomer] = source
            elif here:
                found[newcomer] = STORE if source == AGENT else source
        return found

    def _node_of(self, worker: int) -> str:
        return self._w.node if self._roster is None else self._roster.workers.get(worker, "")

    # ------------------------------------------------------------------ frames

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Serve):
                if self._node_of(action.worker) == self._w.node:
                    self._send(
                        action.worker,
                        m.Serve(generation=action.generation, version=action.version, frame=action.frame),
                    )
                else:
                    self._asked[action] = self._later(self._fetch(action))
            elif self._node_of(action.worker) == self._w.node:
                self._send(
                    action.worker,
                    m.StateReady(generation=action.generation, version=action.version, frame=action.frame),
                )
            elif self.peers is not None:
                self._abroad.setdefault(self._node_of(action.worker), set()).add(action.worker)
                self._later(self.peers.exchange.ready(action.generation, action.version, action.frame))

    def _send(self, to: int, message: m.ToWorker) -> None:
        if to in self._told:
            self._w.links.send(to, message)
        else:
            self._held_back.setdefault(to, []).append(message)

    async def _fetch(self, action: Serve) -> None:
        """Take the place of a source on another node."""
        node = self._store if action.worker == STORE else self._node_of(action.worker)
        address = self._roster.addresses.get(node, "") if self._roster else ""
        wish = Fetch(
            node=self._w.node,
            generation=action.generation,
            version=action.version,
            stored=action.worker == STORE,
        )
        begin_ns = spans.clock()
        try:
            if self.peers is None or not address:
                raise TransferFailed(f"node {node!r} is gone")
            frame_bytes = await self.peers.fetch(address, wish, action.frame, lambda: self._answered(action))
            spans.add("fetch", begin_ns, generation=action.generation, value=frame_bytes)
        except TransferFailed as error:
            self._answered(action)
            self.serve_failed(action.worker, action.generation, action.frame)
            self._fetch_failed(
                action.generation, f"fetching version {action.version} from node {node}: {error}"
            )
            return
        self._holds += 1
        held = self._holds
        served = m.Served(
            generation=action.generation, version=action.version, frame=action.frame, frame_bytes=frame_bytes
        )
        self.served(action.worker, served, reader=_FIRST_HOLD - held)  # no gap in which it could be filled
        try:
            await self.peers.taking.pass_on(action.frame)
        finally:
            self.release(held, self._w.node)

    def _answered(self, action: Serve) -> None:
        self._asked.pop(action, None)

    def _fetch_failed(self, generation: int, error: str) -> None:
        """Tell the coordinator, in the newcomers' name, if they still wait."""
        picture = self._w.picture
        if generation != picture.generation:
            return
        failed = m.RestoreFailed(generation=generation, frame=-1, error=error)
        for newcomer in picture.copying:
            if self._node_of(newcomer) == self._w.node:
                self._w.client.say(m.Relayed(worker=newcomer, said=failed))

    def stored(self, version: int) -> int:
        """Return the newest sealed frame if it holds ``version``, else -1."""
        newest = self._book.newest
        return newest if newest is not None and self._book.newest_version() == version else -1

    def hold(self, frame: int, version: int) -> int:
        """Keep ``frame`` as it is while it goes out, if it holds ``version``; -1 if it does not."""
        self._holds += 1
        reader = _FIRST_HOLD - self._holds
        return self._holds if self._book.hold(frame, version, reader) else -1

    def release(self, held: int, node: str) -> None:
        """A frame has gone to ``node``, well or not: who waits there for it has it, or needs another."""
        self._perform(self._book.read_done(_FIRST_HOLD - held))
        self._let_go(node)

    def _let_go(self, node: str) -> None:
        for reader in self._abroad.pop(node, set()):
            self._perform(self._book.read_done(reader))

    def _let_everybody_go(self) -> None:
        for node in list(self._abroad):
            self._let_go(node)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _later(self, work: asyncio._CoroutineLike[None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # an exception is a defect, and the event loop's handler hears of it
