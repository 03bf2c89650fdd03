"""The clocks of a job's nodes: how far each is from the clock that the events are told by (pure).

Every node has a monotonic clock that began when it did, and a wall clock that somebody sets; nothing here
looks at the latter. An agent says the time of its own monotonic clock with what it says once a second. What
the coordinator's clock shows when that arrives is later by the way of the message: the smallest difference
is the closest to the truth. A `Comparison` keeps it for a while, so that clocks may also drift apart, and
what it finds is written as an event:

    ClockCompared   node, pid, offset_s     (t of this event = that node's clock + offset_s)

`Clock` reads those events: between two of them it goes along a straight line, so what was ordered on that
node stays ordered. The error is the way of the quickest message, through the network and both event loops.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

WINDOW_S = 60.0
RESOLUTION_S = 0.0005


class Comparison:
    """One node's clock compared with ours. Times in monotonic seconds."""

    def __init__(self) -> None:
        self._told: float | None = None
        self._least = float("inf")
        self._since: float | None = None

    def heard(self, theirs: float, ours: float) -> float | None:
        """Take in that our clock shows ``ours`` when a message of ``theirs`` arrives.

        Returns:
            What to add to their times, if that is news.
        """
        if self._since is None:
            self._since = ours
        self._least = min(self._least, ours - theirs)
        over = ours - self._since >= WINDOW_S
        found = self._least
        if over:
            self._least, self._since = ours - theirs, ours
        known = self._told
        # A larger difference may be a slow message: only a whole window of them is a clock that drifts.
        if known is None or known - found > RESOLUTION_S or (over and found - known > RESOLUTION_S):
            self._told = found
            return found
        return None


class Clock:
    """Another node's clock.

    Args:
        readings: (their time, what to add to it), in seconds. None: it is the clock of the events.
    """

    def __init__(self, readings: Iterable[tuple[float, float]] = ()) -> None:
        self._readings = sorted(readings)

    def ours(self, theirs: float) -> float:
        """Return the time of the events' clock when that one shows ``theirs``."""
        after = bisect_right(self._readings, (theirs, float("inf")))
        near = self._readings[max(after - 1, 0) : after + 1]
        if len(near) < 2:
            return theirs + (near[0][1] if near else 0.0)
        (begin, first), (end, last) = near
        if theirs <= begin or end <= begin:
            return theirs + first
        return theirs + first + (last - first) * (theirs - begin) / (end - begin)


class Clocks:
    """The clocks of all processes of a job.

    Args:
        events: The job's, in order.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self._readings: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self._known: set[tuple[str, int]] = set()
        self._agents: dict[str, int] = {}  # as the events go by: node → process id of its agent
        self._agent_of: dict[tuple[int, int], tuple[str, int]] = {}
        for event in events:
            self._add(event)

    def _add(self, event: Mapping[str, Any]) -> None:
        node = event.get("node", "")
        match event["event"]:
            case "NodeJoined":
                self._agents[node] = event["pid"]
                self._known.add((node, event["pid"]))
            case "ClockCompared":
                reading = (event["t"] - event["offset_s"], event["offset_s"])
                known = self._readings.setdefault((node, event["pid"]), [])
                while known and known[-1][1] > reading[1] and reading[0] - known[-1][0] < WINDOW_S:
                    known.pop()  # it was a slow message
                known.append(reading)
            case "WorkerStarted" if node in self._agents:
                self._agent_of[event["worker"], event["pid"]] = (node, self._agents[node])

    def of(self, node: str, worker: int, pid: int) -> Clock:
        """Return the clock of a process; a node may come back with another clock than it went with.

        Args:
            node: Its node.
            worker: Its id, -1 for an agent.
            pid: Its process id.
        """
        agent = (node, pid) if worker < 0 else self._agent_of.get((worker, pid), ("", -1))
        return Clock(self._readings.get(agent, ()))

    def knows(self, node: str, worker: int, pid: int) -> bool:
        """Return whether the events tell of this process of another node."""
        return (worker, pid) in self._agent_of if worker >= 0 else (node, pid) in self._known
