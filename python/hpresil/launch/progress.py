"""What a job leaves behind as it goes: events, the record of its steps, and what its script logged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpresil.base import spans
from hpresil.base.deadline import now
from hpresil.launch.picture import Picture
from hpresil.launch.run_directory import RunDirectory
from hpresil.membership import messages as m
from hpresil.telemetry.events import Event, EventLog
from hpresil.telemetry.recorder import Recorder

KEPT_EVENTS = frozenset({"WorkerLost", "ViewInstalled", "Decided", "GroupBuilt", "Restored"})
TOLD_BY_ALL = frozenset({"ViewInstalled", "Decided"})
REMEMBERED_STEPS = 1024


class Chronicle(Protocol):
    """Where an agent writes down what happens: files on the coordinator's node, a message elsewhere."""

    @property
    def story(self) -> list[Event]:
        """The events of the last generations, for the phases of the last recovery."""

    def event(self, name: str, **fields: object) -> None:
        """Note an event."""

    def committed(self, worker: int, message: m.Committed) -> bool:
        """Take in a worker's commit; return whether it is the first of its step here."""

    def logged(self, message: m.Logged) -> None:
        """Take in what a script logged."""


@dataclass(frozen=True)
class Heritage:
    """What a coordinator's chronicle goes on from.

    Attributes:
        node: Where it lives now; its own events say so from here on.
        shift_s: What to add to this machine's monotonic clock to have the one that events are told by.
        before: The last events that were written; told again by agents, they are not repeated.
    """

    node: str
    shift_s: float
    before: Sequence[Event]


class Progress:
    """Writes down commits and logged values, the first report of each.

    Args:
        directory: Where everything goes.
        recorder: The record; it raises Divergence when two reports of a step differ.
        picture: Told of every commit.
        heritage: What there is to go on from, if another coordinator has written before this one.
        tell: Told, for people, of what cannot be written down.

    Attributes:
        on_event: Called with every event once it is written.
        shift_s: What to add to this machine's monotonic clock to have the job's.
    """

    def __init__(
        self,
        directory: RunDirectory,
        recorder: Recorder,
        picture: Picture,
        tell: Callable[[str], None],
        heritage: Heritage | None = None,
    ) -> None:
        self._node = heritage.node if heritage else ""
        self._before = {_identity(event["event"], event) for event in heritage.before} if heritage else set()
        self.shift_s = heritage.shift_s if heritage else 0.0
        self._recorder, self._picture = recorder, picture
        self._events = EventLog(directory.events, tell, self.shift_s)
        self._metrics = EventLog(directory.metrics, tell)
        self.on_event: Callable[[Event], None] | None = None
        self._told: set[tuple[str, object]] = set()
        self._logged: dict[int, set[str]] = {}
        self.story: list[Event] = []
        """The events of the last generations, for the phases of the last recovery."""

    def event(self, name: str, **fields: object) -> None:
        """Write an event; what agents of several nodes tell of one generation is written once."""
        if self._node:
            fields.setdefault("node", self._node)
        if name in TOLD_BY_ALL:
            generation = fields["generation"]
            if (name, generation) in self._told:
                return
            self._told = {(n, g) for n, g in self._told if n != name} | {(name, generation)}
        if self._before and _identity(name, fields) in self._before:
            return
        line = self._events.add(name, **fields)
        if self.on_event is not None:
            self.on_event(line)
        if name == "ViewInstalled":
            views = [i for i, event in enumerate(self.story) if event["event"] == "ViewInstalled"]
            if len(views) > 2:
                del self.story[: views[-2]]
        if name in KEPT_EVENTS or (name == "StepCompleted" and self._open_recovery()):
            self.story.append(line)

    def committed(self, worker: int, message: m.Committed) -> bool:
        """Take in a worker's commit; return whether it is the first of its step.

        Raises:
            Divergence: An earlier report of the step differs.
            DataError: The record cannot be written.
        """
        first = self._recorder.add(worker, message, now() + self.shift_s)
        if first:
            self.event(
                "StepCommitted",
                step=message.step,
                generation=message.generation,
                world_size=message.world_size,
                loss=float.fromhex(message.loss),
                worker=worker,
                tokens=message.tokens,
            )
        if self._picture.committed(worker, message):
            self.event("StepCompleted", step=message.step, generation=message.generation)
        return first

    def logged(self, message: m.Logged) -> None:
        """Take in what a script logged."""
        seen = self._logged.setdefault(message.step, set())
        new = {key: value for key, value in message.values.items() if key not in seen}
        if not new:
            return
        seen.update(new)
        for old in [step for step in self._logged if step < message.step - REMEMBERED_STEPS]:
            del self._logged[old]
        self._metrics.write({"step": message.step, "t": round(now() + self.shift_s, 6), **new})

    def close(self) -> None:
        """Make the record durable and close all files."""
        self._recorder.close()
        self._events.close()
        self._metrics.close()
        spans.detach()

    def _open_recovery(self) -> bool:
        return bool(self.story) and self.story[-1]["event"] != "StepCompleted"


def _identity(name: str, fields: Mapping[str, object]) -> str:
    """Return what makes an event the same if it is told again, by the same agent or another one."""
    if name in ("StepCommitted", "StepCompleted"):
        fields = {"step": fields["step"]}
    elif name in TOLD_BY_ALL:
        fields = {"generation": fields["generation"]}
    known = {key: value for key, value in fields.items() if key not in ("t", "wall", "event")}
    return json.dumps([name, known], sort_keys=True)


class Forwarded:
    """The chronicle of a node without the coordinator: everything goes there.

    Commits and logged values reach it as messages of the workers; here they only shape the picture.

    Args:
        say: Sends a message to the coordinator.
        picture: Told of every commit.
    """

    def __init__(self, say: Callable[[m.FromAgent], None], picture: Picture) -> None:
        self._say, self._picture = say, picture
        self.story: list[Event] = []

    def event(self, name: str, **fields: object) -> None:
        """Send an event; the job's end is the coordinator's news."""
        if name != "JobEnded":
            self._say(m.Noted(at=now(), event=name, fields=fields))

    def committed(self, worker: int, message: m.Committed) -> bool:
        """Note a commit; return whether it is the first of its step on this node."""
        first = message.step > self._picture.step
        self._picture.committed(worker, message)
        return first

    def logged(self, message: m.Logged) -> None:
        """Do nothing: the worker's message goes to the coordinator as it is."""
