"""Of two coordinators one at most decides, whatever copies and answers are lost on the way."""

from __future__ import annotations

import random

import msgspec
import pytest

from hpresil.membership import quorum
from hpresil.membership.agent_messages import Copied
from hpresil.membership.state import Node, Settings, State, begin
from hpresil.membership.turn import Turn

NAMES = "abcdef"


class Office:
    """A coordinator on "a", the agents bound to it, and those that have left, each with its last copy."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        count = self.random.randint(1, len(NAMES))
        state = begin(Settings(workers=1, host="a"), 0.0)
        nodes = {name: Node(name=name, order=i, address=name, since=0.0) for i, name in enumerate(NAMES)}
        self._nodes = nodes
        self.state = msgspec.structs.replace(
            state, phase="training", nodes={name: nodes[name] for name in NAMES[:count]}
        )
        self.copies: dict[str, State] = {}
        self.answers: list[Copied] = []
        self._settle()
        for name in self.state.nodes:
            self.copies[name] = self.state

    def _settle(self) -> None:
        turn = Turn(self.state, 0.0)
        quorum.settle(turn)
        self.state = turn.state

    def moves(self) -> None:
        """One thing happens: a node goes or comes, a copy or an answer arrives or is lost."""
        there = [name for name in self.state.nodes if name != "a"]
        away = [name for name in NAMES if name not in self.state.nodes]
        kind = self.random.choice(("goes", "comes", "copy", "copy", "answer", "answer"))
        if kind == "goes" and there:
            gone = self.random.choice(there)
            nodes = {name: node for name, node in self.state.nodes.items() if name != gone}
            self.state = msgspec.structs.replace(self.state, nodes=nodes)
            self.answers = [answer for answer in self.answers if answer.node != gone]
        elif kind == "comes" and away:
            name = self.random.choice(away)
            nodes = {**self.state.nodes, name: self._nodes[name]}
            self.state = msgspec.structs.replace(self.state, nodes=nodes)
        elif kind == "copy" and there:
            name = self.random.choice(there)
            self.copies[name] = self.state
            self.answers.append(Copied(node=name, term=1, proposal=self.state.proposal))
        elif kind == "answer" and self.answers:
            turn = Turn(self.state, 0.0)
            quorum.copied(turn, self.answers.pop(0))
            self.state = turn.state
        self._settle()

    def challenger_wins(self) -> bool:
        """Whether those that have left could make a coordinator among themselves."""
        voters = [name for name in self.copies if name not in self.state.nodes]
        if not voters:
            return False
        newest = max((self.copies[name] for name in voters), key=lambda copy: copy.proposal)
        return quorum.wins(newest, voters)


@pytest.mark.parametrize("seed", range(300))
def test_never_two(seed: int) -> None:
    office = Office(seed)
    for _ in range(60):
        office.moves()
        assert not (quorum.may_decide(office.state) and office.challenger_wins()), office.state


def test_the_schedules_reach_what_they_are_about() -> None:
    wins = stops = 0
    for seed in range(300):
        office = Office(seed)
        for _ in range(60):
            office.moves()
            wins += office.challenger_wins()
            stops += not quorum.may_decide(office.state)
    assert wins > 100
    assert stops > 100


def test_a_quorum_that_may_change_without_asking_anybody_would_allow_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quorum, "_half", lambda nodes, those: True)  # what settles and what decides
    with pytest.raises(AssertionError):
        for seed in range(300):
            test_never_two(seed)
