"""The copies of the coordinator's state that other agents keep, so that one of them can take over.

A copy goes to every other agent before the orders that follow from the same event, whenever it is about who
is there; what changes with every step goes along once a second. After it `Heard` tells each agent how much
of what it has said is in there. `Heard` is also the coordinator's sign of life.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import msgspec

from hpresil.membership.messages import Accepted, Heard, StateCopy, ToAgent
from hpresil.membership.state import State
from hpresil.membership.tally import Tally

PERIOD_S = 1.0
KEY_BYTES = 32
NODES_A_SECOND = 16
"""With more nodes the regular copies become rarer, so that their number per second stays the same."""


class Copies:
    """Decides when which agent gets what.

    Args:
        tell: Sends a message to a node.
        others: Returns the nodes of the other agents that are connected.
        tally: What the state holds of what they say.
        shift_s: What to add to this machine's clock to have the one that events are told by.
        inherited: The copy that this coordinator goes on from, if it is not the job's first.
    """

    def __init__(
        self,
        tell: Callable[[str, ToAgent], None],
        others: Callable[[], Iterable[str]],
        tally: Tally,
        shift_s: float,
        inherited: StateCopy | None = None,
    ) -> None:
        self._frames_key = inherited.frames_key if inherited else secrets.token_bytes(KEY_BYTES)
        self._tell, self._others, self._tally, self._shift_s = tell, others, tally, shift_s
        self._revision = 0
        self._sent = -1
        self._sent_at = self._alive_at = float("-inf")
        self.heard: dict[str, int] = {}
        """How many messages of each agent the state holds."""

    def changed(self, old: State, new: State, now: float) -> None:
        """Send the new state if it is about who is there."""
        self._revision += 1
        if _about_membership(old) != _about_membership(new):
            self._send(new, now)

    def tick(self, state: State, now: float, *, all_heard: dict[str, int] | None) -> None:
        """Send what is due. ``all_heard``: the counts, if nothing that was said waits to be decided on."""
        others = list(self._others())
        if not others or now - self._alive_at < PERIOD_S:
            return
        self._alive_at = now
        due = now - self._sent_at >= PERIOD_S * max(1.0, len(others) / NODES_A_SECOND)
        if due and all_heard is not None:
            if self._sent != self._revision:
                self._send(state, now)
            self.heard = dict(all_heard)
        for node in others:
            self._tell(node, Heard(said=self.heard.get(node, 0)))

    def accepted(self, term: int, workers: list[int]) -> Accepted:
        """Return what an agent is told that is taken in."""
        return Accepted(term=term, workers=workers, frames_key=self._frames_key)

    def welcome(self, node: str, state: State, now: float, said: int) -> None:
        """Give an agent that has just come its copy."""
        self.heard[node] = said
        self._tell(node, self._copy(state, now))

    def _send(self, state: State, now: float) -> None:
        if state.phase == "ended":  # a new coordinator must be able to tell of the end again
            return
        copy = None
        for node in self._others():
            copy = copy or self._copy(state, now)
            self._tell(node, copy)
        self._sent, self._sent_at = self._revision, now

    def _copy(self, state: State, now: float) -> StateCopy:
        return StateCopy(
            term=state.term,
            revision=self._revision,
            holds=dict(self._tally.holds),
            proposal=state.proposal,
            at=now,
            shift_s=self._shift_s,
            state=msgspec.msgpack.encode(state),
            frames_key=self._frames_key,
        )


def _about_membership(state: State) -> tuple[object, ...]:
    workers = [(w.id, w.phase, w.node) for w in state.workers.values()]
    whole = (state.generation, state.phase, state.term, state.proposal, state.quorum, state.draining)
    return (
        *whole,
        tuple(state.nodes),
        workers,
        state.restarts,
        state.failures,
        state.discards,
        state.settings,
    )
