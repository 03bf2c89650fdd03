"""A job of several nodes, told event by event."""

from __future__ import annotations

from collections import Counter
from typing import Any

from coordinator_story import Story

from hpresil.membership import messages as m
from hpresil.membership.machine import NodeLost


class Nodes(Story):
    """A story with several nodes; node X is at X:1 until it comes anew, then at X:2 and so on."""

    def __init__(self, workers: int = 2, spares: int = 0, nnodes: int = 2, **settings: Any) -> None:
        super().__init__(workers, spares, nnodes=nnodes, host="a", **settings)
        self.came: Counter[str] = Counter()

    def joins(self, node: str) -> list[m.ToAgent]:
        self.came[node] += 1
        address = f"{node}:{self.came[node]}"
        return self.happens(m.AgentJoined(node=node, pid=1, address=address))

    def reaches(self, node: str, *others: str, failed: str = "", address: str = "") -> list[m.ToAgent]:
        tried = {other: address or f"{other}:{self.came[other]}" for other in others}
        return self.happens(m.Reached(node=node, tried=tried, failed={failed: "refused"} if failed else {}))

    def enters(self, node: str) -> list[m.ToAgent]:
        """A node joins and everybody reaches everybody; return what followed from the last word."""
        others = list(self.state.nodes)
        self.joins(node)
        for other in others:
            self.reaches(other, node)
        told = self.reaches(node, *others) if others else self.told
        for start in [action for action in told if isinstance(action, m.StartWorker)]:
            self.happens(m.WorkerStarted(worker=start.worker, node=start.node, pid=start.worker + 1))
        self.told = told
        return told

    def loses(self, node: str) -> list[m.ToAgent]:
        self.gone |= {w.id for w in self.state.workers.values() if w.node == node}
        return self.happens(NodeLost(node=node, why="silent"))

    def trains(self, *nodes: str) -> Nodes:
        """Everybody is there and the first state is installed on all members."""
        for node in nodes:
            self.enters(node)
        self.ready(*list(self.state.workers))
        for member in self.state.members:
            self.reports(member)
        self.everybody_restores()
        self.rehearsed(*[w for w in self.state.workers if w not in self.state.members])
        assert self.state.phase == "training"
        return self

    def where(self) -> dict[str, list[int]]:
        """The workers of each node."""
        found: dict[str, list[int]] = {}
        for worker in self.state.workers.values():
            found.setdefault(worker.node, []).append(worker.id)
        return found

    def probes(self) -> dict[str, dict[str, str]]:
        return {a.node: a.addresses for a in self.told if isinstance(a, m.Probe)}

    def rejected(self) -> dict[str, str]:
        return {a.node: a.reason for a in self.told if isinstance(a, m.Rejected)}

    # ------------------------------------------------------------------ what people ask

    def asks_to_drain(self, target: str, request: int = 1, node: str = "a") -> m.Answered:
        self.happens(m.NodeDrainRequested(node=node, request=request, target=target))
        return self.answers[0]

    def asks_for(self, workers: int, request: int = 1, node: str = "a") -> m.Answered:
        self.happens(m.ResizeRequested(node=node, request=request, workers=workers))
        return self.answers[0]

    @property
    def answers(self) -> list[m.Answered]:
        return [action for action in self.told if isinstance(action, m.Answered)]

    @property
    def dismissed(self) -> list[str]:
        return [action.node for action in self.told if isinstance(action, m.Dismissed)]

    def hand_over(self, version: int, *workers: int) -> list[m.ToAgent]:
        """All members (or some) have stopped at the end of a step."""
        said = m.HandedOver(generation=self.state.generation, version=version)
        return self._all(workers or self.state.members, said)

    def leaves(self, *workers: int) -> list[m.ToAgent]:
        """Released processes have ended."""
        everything: list[m.ToAgent] = []
        for worker in workers:
            everything += self.happens(m.WorkerLeft(worker=worker, status=0))
            self.gone.add(worker)
        self.told = everything
        return everything
