"""The nodes of a world: they join, are lost, drained, sent away and come back; people ask them for things."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator_worker import Plan

from hpresil.membership import machine, messages as m

if TYPE_CHECKING:
    from coordinator_world import World


class Nodes:
    """All nodes; the first one, "a", has the coordinator and is never lost.

    Attributes:
        there: The address of each node whose agent runs.
        sealed: The version in the newest sealed frame of each.
    """

    def __init__(self, plan: Plan, chance: random.Random, say: Callable[[machine.Event], None]) -> None:
        self.plan, self.random, self._say = plan, chance, say
        self.there: dict[str, str] = {}
        self.sealed: dict[str, int] = {}
        self.cut: set[str] = set()
        self.away: list[str] = []
        self.asked: dict[int, str] = {}
        self.answers: dict[int, list[m.Answered]] = {}
        self._joined = 0
        for name in "abcd"[: plan.nodes]:
            self._join(name)

    def _join(self, name: str) -> None:
        self._joined += 1
        self.there[name] = f"{name}:{self._joined}"
        self._say(m.AgentJoined(node=name, pid=1, address=self.there[name]))

    def misfortune(self, world: World) -> None:
        """Lose a node, bring one back, or ask for something."""
        plan = self.plan
        others = [name for name in self.there if name != "a"]
        kinds = ["node_losses"] * bool(others) + ["returns"] * bool(self.away) + ["drains", "resizes"]
        kind = self.random.choice(kinds)
        too_early = kind in ("drains", "resizes") and not world.views and self.random.random() < 0.9
        if getattr(plan, kind) <= 0 or too_early:
            return
        setattr(plan, kind, getattr(plan, kind) - 1)
        if kind == "node_losses":
            self._lose(world, self.random.choice(others), "silent")
        elif kind == "returns":
            name = self.away.pop(self.random.randrange(len(self.away)))
            if plan.cuts > 0:
                plan.cuts -= 1
                self.cut.add(name)
            self._join(name)
        else:
            self._ask(kind)

    def _ask(self, kind: str) -> None:
        asker = self.random.choice(list(self.there))
        request = len(self.asked)
        self.asked[request] = asker
        self.answers[request] = []
        if kind == "drains":
            target = self.random.choice([*"abcd"[: self.plan.nodes], "nowhere"])
            self._say(m.NodeDrainRequested(node=asker, request=request, target=target))
        else:
            self._say(m.ResizeRequested(node=asker, request=request, workers=self.random.randint(0, 6)))

    def _lose(self, world: World, name: str, why: str) -> None:
        """The agent of a node ends, with everything on the node."""
        del self.there[name]
        self.sealed.pop(name, None)
        self.away.append(name)
        for worker in world.workers.values():
            if worker.node == name and worker.alive:
                world.die(worker, "node lost")
        self._say(machine.NodeLost(node=name, why=why))

    def told(self, world: World, action: m.Probe | m.Rejected | m.Dismissed | m.Answered) -> None:
        """An agent hears something."""
        if action.node not in self.there:
            return
        match action:
            case m.Probe():
                apart = {node: "cut" for node in action.addresses if {node, action.node} & self.cut}
                self.cut -= {action.node, *apart}
                self._say(m.Reached(node=action.node, tried=action.addresses, failed=apart))
            case m.Rejected():
                self._lose(world, action.node, "sent away")
            case m.Dismissed():
                here = [w.id for w in world.workers.values() if w.node == action.node and w.alive]
                assert not here, f"{here} still run on {action.node}, which is dismissed"
                assert action.node != "a"
                assert action.node not in world.state.nodes
                self._lose(world, action.node, "dismissed")
            case m.Answered():
                assert self.asked[action.request] == action.node
                assert not any(answer.done for answer in self.answers[action.request]), "answered twice"
                assert not action.failed or action.done
                self.answers[action.request].append(action)
