"""How much of what each agent has said has come, and how much of it is in the coordinator's state.

An agent numbers its messages through the whole job, `Alive` left out, and says again to a new coordinator
what nobody has told it was `Heard`. Some of that may be in the copy that this coordinator began from: it is
counted there, and must not count twice.
"""

from __future__ import annotations

from collections.abc import Mapping


class Tally:
    """Counts messages by agent. No sockets, no clock.

    Args:
        held: How many messages of each agent the state holds at the beginning.

    Attributes:
        came: How many have come, by node.
        holds: How many the state holds, by node.
    """

    def __init__(self, held: Mapping[str, int]) -> None:
        self.came: dict[str, int] = {}
        self.holds: dict[str, int] = dict(held)

    def joined(self, node: str, said: int, *, known: bool) -> None:
        """An agent begins, and its next message is number ``said + 1``; ``known``: it was in the copy."""
        self.came[node] = said
        if not known:
            self.holds[node] = said

    def next(self, node: str) -> int:
        """A message has come; return its number, 0 if the state holds it already."""
        number = self.came[node] = self.came.get(node, 0) + 1
        return number if number > self.holds.get(node, 0) else 0

    def applied(self, node: str, number: int) -> None:
        """Everything up to this message is in the state, or has no place there."""
        self.holds[node] = max(number, self.holds.get(node, 0))
