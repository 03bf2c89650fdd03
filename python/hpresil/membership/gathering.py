"""The first moments of a coordinator that takes over: who of the old one's agents has come.

It begins with those that are there once everybody has come who can, or after `GATHER_S` seconds if they are
enough. Being bound is what counts, not the votes: an agent is bound to one coordinator at a time and never
goes back to an older one, so whoever is left by more than half of the quorum can no longer decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hpresil.membership import quorum
from hpresil.membership.agent_messages import AgentJoined, FromAgent, StateCopy
from hpresil.membership.state import State
from hpresil.membership.takeover import TookOver

GATHER_S = 1.0
PATIENCE_S = 3.0


class Hold:
    """What agents say, kept back until it is known that this coordinator begins.

    Args:
        on_said: Where it goes.
        held: Keep it back at first.
    """

    def __init__(self, on_said: Callable[[str, FromAgent], None] | None, *, held: bool) -> None:
        self._on_said = on_said
        self._kept: list[tuple[str, FromAgent]] | None = [] if held else None

    def pass_on(self, node: str, message: FromAgent) -> None:
        """Pass on what the agent of ``node`` says, now or later."""
        if self._kept is not None:
            self._kept.append((node, message))
        elif self._on_said is not None:
            self._on_said(node, message)

    def release(self) -> None:
        """Pass on what was kept, in order, and everything from now on at once."""
        kept, self._kept = self._kept or [], None
        for node, message in kept:
            self.pass_on(node, message)


class Gathering:
    """The agents that have come. Single-threaded.

    Args:
        state: The copy of the old coordinator's state.
        node: Where the new one lives.
        term: Its term.
        copy: It. The coordinator does not begin if somebody comes with a newer one.
    """

    def __init__(self, state: State, node: str, term: int, copy: StateCopy) -> None:
        self._state, self._node, self.term = state, node, term
        self._copy, self._outdated = (copy.term, copy.revision), False
        self._alive: dict[str, list[int]] = {}
        self._generation = state.generation
        self._arrival = asyncio.Event()
        self.over = False

    def came(self, joined: AgentJoined) -> list[int] | None:
        """Note an agent; return its processes that stay in the job, None if it is none of the old ones."""
        if self.over or not joined.term or joined.node not in self._state.nodes:
            return None
        self._outdated |= joined.copy > self._copy
        known = self._state.workers
        kept = [w for w in joined.workers if w in known and known[w].node == joined.node]
        self._alive[joined.node] = kept
        self._generation = max(self._generation, joined.generation)
        self._arrival.set()
        return kept

    def went(self, node: str) -> bool:
        """Note that an agent is gone again; return whether it had come as one of the old ones."""
        return not self.over and self._alive.pop(node, None) is not None

    async def outcome(self) -> TookOver | None:
        """Return how to begin; None if too few have come."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        expected = set(self._state.nodes) - {self._state.host}
        while not expected <= self._alive.keys():
            waited = loop.time() - start
            limit = GATHER_S if self._enough() else PATIENCE_S
            if waited >= limit:
                break
            self._arrival.clear()
            try:
                async with asyncio.timeout(limit - waited):
                    await self._arrival.wait()
            except TimeoutError:
                continue
        self.over = True
        if not self._enough() or self._outdated:  # whoever has the newer copy is the better candidate
            return None
        return TookOver(node=self._node, term=self.term, generation=self._generation, alive=self._alive)

    def _enough(self) -> bool:
        leased = self._state.settings.leased
        return self._node in self._alive and (leased or quorum.wins(self._state, self._alive))
