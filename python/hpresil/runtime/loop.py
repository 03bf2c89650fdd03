"""The loop over steps: joining, rehearsing, copying state, stepping, finishing.

``run.steps(n)`` asks here before each step what this worker has to do. A worker joins when the loop
starts, because only then its model, optimizer and settings are known and can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpresil.base import failpoints, spans
from hpresil.base.deadline import Deadline
from hpresil.base.errors import Refused
from hpresil.checkpoint import saved
from hpresil.membership import messages as m
from hpresil.runtime import step_machine as sm
from hpresil.runtime.engine import BEAT_S
from hpresil.runtime.failure import Failures
from hpresil.runtime.newcomer import Newcomer
from hpresil.runtime.serving import Server
from hpresil.runtime.step import DryStep, Step
from hpresil.runtime.trainer import Trainer


class Loop:
    """Runs one job's steps on this worker."""

    def __init__(
        self,
        trainer: Trainer,
        server: Server,
        *,
        facts: dict[str, str],
        newcomer: Newcomer,
        resume: str | None,
    ) -> None:
        self._trainer, self._server = trainer, server
        self._engine = trainer.engine
        self._failures = Failures(trainer)
        self._newcomer = newcomer
        self._facts, self._resume = facts, resume
        self._index = 0
        self._rehearsed = False
        self._said_finished = -1

    def steps(self, total: int) -> Iterator[Step]:
        """Yield a `Step` for each step up to version ``total``; a spare's first one is a rehearsal.

        Raises:
            JobStopped: The job ended with an error elsewhere.
            SystemExit: (0) The job was drained, or this worker was a spare to the end.
        """
        with spans.span("join"):
            self._join()
        announcements = 2
        while True:
            turn = self._turn(total)
            if turn == "end":
                break
            if turn == "rehearse":
                yield from self._rehearse()
            elif turn == "copy":
                self._newcomer.copy_state()
            else:
                if announcements and self.has_state():  # a newcomer that is arriving has no time for it
                    # Optimizer state appears with the first commit: the second look is the one that lasts.
                    announcements -= 1
                    self._server.announce()
                yield Step(self._trainer, self._failures, self._index)
        self._leave()

    def _join(self) -> None:
        failpoints.hit("join.begin", worker=self._engine.worker)
        version = -1
        if self._resume is not None:
            version = self._load(self._resume)
        self._engine.stamp("standby")
        self._engine.send(m.Ready(facts=self._facts, version=version, pristine=True))

    def _load(self, path: str) -> int:
        version, state, identity = saved.load(path)
        for name, value in identity.items():
            mine = self._facts.get(name, "nothing")
            if mine != value:
                raise Refused(
                    f"the checkpoint {path} belongs to a job with {name} = {value}, this one has {mine}: "
                    "resume with the same settings and model, or start a new job in another run directory"
                )
        self._trainer.tracked.restore(state)
        self._trainer.state_replaced()
        self._engine.change(lambda s: sm.with_version(s, version))
        return version

    def _turn(self, total: int) -> str:
        """Wait until it is clear what to do: "step", "rehearse", "copy" or "end"."""
        engine = self._engine
        longest = engine.config.collective_timeout_s + engine.config.min_workers_timeout_s
        waiting_in, deadline = -1, Deadline(longest, f"a decision for worker {engine.worker}")
        while True:
            with engine.changed:
                engine.check()
                turn = self._decide(total)
                if turn is None:
                    if self._may_wait_for_ever() or engine.state.installed != waiting_in:
                        waiting_in = engine.state.installed
                        deadline = Deadline(longest, f"a decision for worker {engine.worker}")
                    deadline.check()
                    # One span a beat: a spare may wait for days, and its trace shows that it still does.
                    with spans.span("standby" if engine.state.rank is None else "wait"):
                        engine.changed.wait(BEAT_S)
                    continue
            if turn != "finish":
                return turn
            self._finish()

    def _may_wait_for_ever(self) -> bool:
        """A spare waits for as long as the job runs, a finished worker for the others' last step."""
        return self._engine.state.rank is None or self._engine.state.finished

    def _decide(self, total: int) -> str | None:
        """Return what to do now, None if that depends on a message. Call with the lock held."""
        engine, state = self._engine, self._engine.state
        if engine.release is not None:
            return "end"
        if state.rank is None:
            return "rehearse" if engine.standby and not self._rehearsed and state.phase == "empty" else None
        if state.decided != state.installed:
            return None
        if state.phase == "empty":
            return "copy" if state.source is not None else None
        if state.version >= total or state.finished:
            if state.phase == "arriving":
                return None
            return "finish" if self._said_finished < state.decided else None
        if state.handed == state.decided:
            return None  # all members stop here until a newer view
        self._index = state.version  # now: a newer view may take a state away that is still arriving
        return "step"

    def await_state(self) -> None:
        """Wait until this worker's state is whole, or was given up."""
        engine = self._engine
        engine.wait_until(
            lambda: engine.state.phase != "arriving", engine.config.outside_timeout_s, "the rest of the state"
        )

    def has_state(self) -> bool:
        """Whether this worker holds a whole version."""
        return self._engine.state.held >= 0

    # ------------------------------------------------------------------ spares and newcomers

    def _rehearse(self) -> Iterator[Step]:
        failpoints.hit("standby.begin", worker=self._engine.worker)
        self._rehearsed = True
        self._trainer.rehearsing = True
        try:
            with spans.span("standby step"):
                yield DryStep(self._trainer, self._failures, 0)
        finally:
            self._trainer.rehearsing = False
            self._trainer.drop_open_slot()
            self._trainer.gradients.reset()
            self._trainer.numbers.clear()
        self._server.announce()
        self._engine.stamp("standby")
        self._engine.send(m.Ready(facts=self._facts, version=-1, pristine=False))

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        engine = self._engine
        with engine.changed:
            engine.state = sm.loop_finished(engine.state)
            state = engine.state
        self._said_finished = state.decided
        engine.stamp("done")
        engine.send(
            m.Finished(
                generation=state.decided, version=state.version, drained=self._trainer.drained or engine.drain
            )
        )

    def _leave(self) -> None:
        engine = self._engine
        engine.stamp("done")
        never_trained = engine.state.version < 0
        drained = engine.release is not None and engine.release.drained
        self._server.close()
        engine.groups.close()
        if drained or never_trained:
            raise SystemExit(0)
