"""The coordinator's state, and the journal in which each change is written down before it takes effect."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from hpresil.base import spans
from hpresil.membership import machine
from hpresil.membership.journal import Journal
from hpresil.membership.machine import Event
from hpresil.membership.messages import Broken, Decision, Deliver, JobEnded, ToAgent, View
from hpresil.membership.state import State

log = logging.getLogger(__name__)


class Ledger:
    """Applies events, one at a time.

    Args:
        state: How it begins.
        path: The journal to create; None: none is kept.
        inherited: The state is a copy of another coordinator's, so the journal begins with all of it.

    Attributes:
        state: After the last event.
    """

    def __init__(self, state: State, path: Path | None, *, inherited: bool) -> None:
        self.state = state
        self._path, self._inherited = path, inherited
        self._journal: Journal | None = None
        self._broken: Broken | None = None

    def open(self) -> None:
        """Begin the journal. Raises FileExistsError if there is one."""
        if self._path is not None:
            self._journal = Journal(self._path, self.state, self.state.since, inherited=self._inherited)

    def step(self, event: Event, now: float) -> list[ToAgent]:
        """Apply ``event``; what it returns may be sent once `durable` has returned."""
        before = self.state
        self.state, actions = machine.step(before, event, now)
        if self.state is not before and self._journal is not None:
            try:
                self._journal.append(event, now, self.state.generation)
            except OSError as error:
                self._give_up(error)
        return actions

    async def durable(self, actions: list[ToAgent], now: float) -> bool:
        """Wait until what leads to ``actions`` is on the disk; False if that is not possible any more."""
        if self._journal is None:
            return self._path is None
        if any(map(is_decision, actions)):
            try:
                await asyncio.to_thread(self._journal.sync)
            except OSError as error:
                self._give_up(error)
                return False
            spans.add("decide", int(now * 1e9), generation=self.state.generation)
        return True

    def _give_up(self, error: OSError) -> None:
        assert self._journal is not None
        self._journal.give_up()
        self._journal = None
        log.error("the journal cannot be written", exc_info=error)
        reason = f"the journal {self._path} cannot be written: {error.strerror}; make room there"
        self._broken = Broken(reason=reason, sound=True)

    def broken(self) -> Broken | None:
        """Return, once, what to end the job with after the journal could not be written."""
        broken, self._broken = self._broken, None
        return broken

    def close(self) -> None:
        """End the journal; a second call does nothing."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def is_decision(action: ToAgent) -> bool:
    """Return whether ``action`` must never be forgotten once somebody was told."""
    return isinstance(action, JobEnded) or (
        isinstance(action, Deliver) and isinstance(action.what, View | Decision)
    )
