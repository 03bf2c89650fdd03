"""A job told event by event, for tests that read as sentences.

`Story` feeds the coordinator's machine, keeps the time, and checks on every event what must hold in
any story: nothing is said to a worker that is gone, generations only grow, the same events give the
same state again.
"""

from __future__ import annotations

from typing import Any, TypeVar

from hpresil.membership import machine, messages as m
from hpresil.membership.state import Settings, begin

FACTS = {"platform.torch": "2.13", "config.slots": "8", "state.shapes": "w:4x4"}
TOLD: list[Story] = []  # the stories of the running test, checked at its end
T = TypeVar("T", bound=m.Message)


class Story:
    def __init__(self, workers: int = 2, spares: int = 0, **settings: Any) -> None:
        settings.setdefault("save_directory", "/run/checkpoints")
        self.settings = Settings(workers=workers, spares=spares, **settings)
        self.state = begin(self.settings, 0.0)
        self.time = 0.0
        self.history: list[tuple[machine.Event, float]] = []
        self.told: list[m.ToAgent] = []
        self.gone: set[int] = set()
        TOLD.append(self)

    # ------------------------------------------------------------------ what happens

    def happens(self, event: machine.Event) -> list[m.ToAgent]:
        """Apply one event; `told` holds what followed from it."""
        if isinstance(event, m.WorkerLost):
            self.gone.add(event.worker)
        before = self.state
        self.history.append((event, self.time))
        self.state, self.told = machine.step(before, event, self.time)
        assert self.state.generation >= before.generation
        for action in self.told:
            if isinstance(action, m.Deliver):
                assert action.to not in self.gone, f"{action} to a worker that is gone"
            if isinstance(action, m.FenceWorker):
                self.gone.add(action.worker)
        return self.told

    def after(self, seconds: float) -> list[m.ToAgent]:
        """Let time pass, then tick."""
        self.time += seconds
        return self.happens(machine.Tick())

    def says(self, worker: int, said: m.FromWorker) -> list[m.ToAgent]:
        return self.happens(m.Relayed(worker=worker, said=said))

    def agent_joins(self) -> list[m.ToAgent]:
        told = list(self.happens(m.AgentJoined(node="host", pid=1)))
        for start in told:
            assert isinstance(start, m.StartWorker)
            self.started(start.worker)
        self.told = told
        return told

    def started(self, worker: int) -> None:
        self.happens(m.WorkerStarted(worker=worker, node="host", pid=1000 + worker))
        self.says(worker, m.Hello(worker=worker, pid=1000 + worker))

    def ready(self, *workers: int, facts: dict[str, str] | None = None, version: int = -1) -> list[m.ToAgent]:
        """Workers reach their loop with the state the script built (or of a checkpoint)."""
        return self._all(workers, m.Ready(facts=facts or FACTS, version=version))

    def rehearsed(self, *workers: int) -> list[m.ToAgent]:
        """Spares have made their dry step."""
        return self._all(workers, m.Ready(facts=FACTS, pristine=False))

    def _all(self, workers: tuple[int, ...], said: m.FromWorker) -> list[m.ToAgent]:
        everything: list[m.ToAgent] = []
        for worker in workers:
            everything += self.says(worker, said)
        self.told = everything
        return everything

    def reports(
        self,
        worker: int,
        version: int = -1,
        *,
        holding: bool = False,
        kept: tuple[int, ...] = (),
        done: tuple[int, ...] | None = None,
        finished: bool = False,
        generation: int | None = None,
    ) -> list[m.ToAgent]:
        phase = "holding" if holding else "computing" if version >= 0 else "empty"
        said = m.Report(
            generation=self.state.generation if generation is None else generation,
            version=version,
            phase=phase,
            kept=list(kept),
            done=list(kept if done is None else done),
            finished=finished,
        )
        return self.says(worker, said)

    def restored(self, worker: int, version: int) -> list[m.ToAgent]:
        said = m.Restored(generation=self.state.generation, version=version, state_bytes=64)
        return self.says(worker, said)

    def committed(self, step: int, *workers: int) -> list[m.ToAgent]:
        said = m.Committed(
            generation=self.state.generation,
            step=step,
            loss=(1.0).hex(),
            grad_norm=(1.0).hex(),
            samples="ab",
            state="",
            world_size=len(self.state.members),
        )
        return self._all(workers or self.state.members, said)

    def finished(self, version: int, *workers: int, drained: bool = False) -> list[m.ToAgent]:
        said = m.Finished(generation=self.state.generation, version=version, drained=drained)
        return self._all(workers, said)

    def failed(
        self, worker: int, step: int, slot: int, *, kind: str = "exception", retry: bool = True
    ) -> list[m.ToAgent]:
        said = m.SlotFailed(
            step=step, slot=slot, kind=kind, error="ValueError: x", traceback="Traceback: x", retry=retry
        )
        return self.says(worker, said)

    def saved(self, worker: int, version: int, error: str = "") -> list[m.ToAgent]:
        path = "" if error else f"/run/checkpoints/{version}"
        return self.says(worker, m.Saved(version=version, path=path, error=error))

    def lost(
        self, worker: int, reason: str = "killed", status: int | None = -9, **where: Any
    ) -> list[m.ToAgent]:
        return self.happens(m.WorkerLost(worker=worker, reason=reason, status=status, **where))

    def drain(self) -> list[m.ToAgent]:
        return self.happens(m.DrainRequested(why="SIGTERM"))

    # ------------------------------------------------------------------ whole chapters

    def begins(self, version: int = 0) -> Story:
        """Go to the first decision, everybody restored, spares rehearsed."""
        self.agent_joins()
        count = self.settings.workers
        self.ready(*range(count))
        for worker in self.state.members:
            self.reports(worker)
        self.everybody_restores()
        self.ready(*range(count, count + self.settings.spares))
        self.rehearsed(*range(count, count + self.settings.spares))
        assert self.state.phase == "training", self.state
        for step in range(version):
            self.committed(step)
        self.told = []
        return self

    def everybody_restores(self) -> None:
        decision = self.state.decision
        assert decision is not None
        for worker in list(self.state.restoring):
            self.restored(worker, decision.target)

    def everybody_reports(self, version: int) -> list[m.ToAgent]:
        """All members with state are computing ``version``; the others have none."""
        told: list[m.ToAgent] = []
        for worker in self.state.members:
            told = self.reports(worker, version if self.state.workers[worker].version >= 0 else -1)
        return told

    # ------------------------------------------------------------------ what was said

    def to(self, worker: int, kind: type[T]) -> T | None:
        """Return the last message of ``kind`` to ``worker`` among what was just told."""
        found = [a.what for a in self.told if isinstance(a, m.Deliver) and a.to == worker]
        return next((what for what in reversed(found) if isinstance(what, kind)), None)

    def who_got(self, kind: type[m.Message]) -> list[int]:
        return [a.to for a in self.told if isinstance(a, m.Deliver) and isinstance(a.what, kind)]

    def starts(self) -> list[int]:
        return [a.worker for a in self.told if isinstance(a, m.StartWorker)]

    def fences(self) -> dict[int, str]:
        return {a.worker: a.why for a in self.told if isinstance(a, m.FenceWorker)}

    @property
    def view(self) -> list[int]:
        """The members told in the current event, by rank."""
        views = [a.what for a in self.told if isinstance(a, m.Deliver) and isinstance(a.what, m.View)]
        assert views, f"no view among {self.told}"
        assert len({str(view) for view in views}) == 1, views
        return views[0].members

    @property
    def decision(self) -> m.Decision:
        found = [a.what for a in self.told if isinstance(a, m.Deliver) and isinstance(a.what, m.Decision)]
        assert found, f"no decision among {self.told}"
        assert len({str(decision) for decision in found}) == 1
        assert self.who_got(m.Decision) == list(self.state.members)
        return found[0]

    @property
    def end(self) -> m.JobEnded:
        ends = [a for a in self.told if isinstance(a, m.JobEnded)]
        assert len(ends) == 1, f"no end among {self.told}"
        assert self.state.phase == "ended"
        return ends[0]

    def check_replay(self) -> None:
        """The same events give the same state, and the state survives its encoding."""
        state = begin(self.settings, 0.0)
        for event, time in self.history:
            state, _ = machine.step(state, event, time)
        assert state == self.state
        assert machine.decode_state(machine.encode_state(state)) == state
