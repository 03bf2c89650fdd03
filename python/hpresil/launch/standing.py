"""Where an agent stands towards the coordinators of its job. No sockets, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpresil.membership.messages import StateCopy
from hpresil.membership.peer_messages import Elected, Stand, Vote

SAME_CLOCK_S = 0.1
VOTE_S = 3.0
"""How long an agent that has voted votes for nobody else."""


@dataclass
class Standing:
    """Where this agent stands.

    ``term``: of the last coordinator it was bound to; it never goes back to an older one, unless that one has
    withdrawn: then ``before``, of the one before it, counts again. ``bound``: to its address, "" while
    there is none. ``copy``: the newest copy of the state that it got.
    """

    term: int = 0
    before: int = 0
    bound: str = ""
    copy: StateCopy | None = None
    copied_at: float = 0.0
    elected: Elected | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    voted_for: str = ""
    voted_at: float = float("-inf")

    def keep(self, copy: StateCopy, at: float) -> None:
        """Keep the newest copy; ``at``: when it came, in monotonic seconds of this machine."""
        self.copy, self.copied_at = copy, at

    @property
    def newest_copy(self) -> tuple[int, int]:
        """The term and the revision of the copy that is kept."""
        return (self.copy.term, self.copy.revision) if self.copy is not None else (0, 0)

    @property
    def shift_s(self) -> float:
        """What to add to this machine's clock to have the one that events are told by.

        On the same machine it is nothing; on another one it is known to the time a message takes.
        """
        if self.copy is None:
            return 0.0
        apart = self.copy.at - self.copied_at
        return self.copy.shift_s + (apart if abs(apart) > SAME_CLOCK_S else 0.0)

    def answer(self, stand: Stand, at: float) -> Vote:
        """Return the answer to an agent that would be the coordinator."""
        if self.bound:
            return Vote(granted=False, term=self.term, coordinator=self.bound)
        free = self.voted_for in ("", stand.node) or at - self.voted_at > VOTE_S
        granted = free and self.copy is not None and stand.term > self.term
        if granted:
            self.voted_for, self.voted_at = stand.node, at
        return Vote(granted=granted, term=self.term, copy=self.copy if granted else None)

    def withdraw(self) -> None:
        """Take back a vote for this agent itself, which was in vain: another candidate may have it."""
        self.voted_for, self.voted_at = "", float("-inf")

    def bound_to(self, address: str) -> None:
        """Note that the agent has a coordinator."""
        self.bound, self.elected, self.voted_for = address, None, ""
        self.news.clear()

    def accepted(self, term: int) -> None:
        """Note that the coordinator of ``term`` counts on this agent."""
        self.before, self.term = self.term, term

    def released(self, term: int) -> bool:
        """The coordinator of ``term`` never begins; return whether that is the one we are bound to."""
        if term != self.term or term <= self.before:
            return False
        self.term, self.bound = self.before, ""
        return True

    def heard_of(self, elected: Elected) -> bool:
        """Note who says to be the coordinator; return whether that is a later one than ours."""
        later = elected.term > self.term or (elected.term == self.term and not self.bound)
        if later and (self.elected is None or elected.term >= self.elected.term):
            self.elected = elected
            self.news.set()
        return later


def newest(copies: Iterable[StateCopy]) -> StateCopy:
    """Return the newest of these copies."""
    return max(copies, key=lambda copy: (copy.term, copy.revision))
