"""What a job leaves behind as it goes: events, the record of its steps, and what its script logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpresil.base import spans
from hpresil.base.deadline import now
from hpresil.launch.picture import Picture
from hpresil.membership import messages as m
from hpresil.telemetry.events import Event, EventLog
from hpresil.telemetry.record import Recorder
from hpresil.telemetry.trace import TraceKeeper

KEPT_EVENTS = frozenset({"WorkerLost", "ViewInstalled", "Decided", "GroupBuilt", "Restored"})
REMEMBERED_STEPS = 1024


class Progress:
    """Writes down commits and logged values, the first report of each.

    Args:
        events: Where events go.
        metrics: The file of logged values.
        recorder: The record; it raises Divergence when two reports of a step differ.
        picture: Told of every commit.
        traces: Keeps the spans of this process and of the workers.

    Attributes:
        on_event: Called with every event once it is written.
    """

    def __init__(
        self, events: EventLog, metrics: Path, recorder: Recorder, picture: Picture, traces: TraceKeeper
    ) -> None:
        self._events, self._recorder, self._picture = events, recorder, picture
        self._metrics = EventLog(metrics)
        self.traces = traces
        self.on_event: Callable[[Event], None] | None = None
        self._logged: dict[int, set[str]] = {}
        self.story: list[Event] = []
        """The events of the last generations, for the phases of the last recovery."""

    def event(self, name: str, **fields: object) -> None:
        """Write an event."""
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
        first = self._recorder.add(worker, message, now())
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
        self._metrics.write({"step": message.step, "t": round(now(), 6), **new})

    def close(self) -> None:
        """Make the record durable and close all files."""
        self._recorder.close()
        self._events.close()
        self._metrics.close()
        spans.detach()
        self.traces.close()

    def _open_recovery(self) -> bool:
        return bool(self.story) and self.story[-1]["event"] != "StepCompleted"
