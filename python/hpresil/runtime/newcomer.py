"""How a newcomer copies its state: what a gradient needs first, the rest while it computes.

The source seals its frame piece by piece, and the newcomer copies one piece behind it. With parameters,
buffers and python values installed it runs its slots; a thread of its own copies the optimizers' state.
Until that is whole the newcomer has no state as far as anybody else is concerned (`step_machine`, rule 6),
and it enters no reduction. What cannot be taken apart, see `Restoration.may_finish_first`, is copied at once.

Not guaranteed: what a script sees of the moments of its optimizers before `apply` in this one step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hpresil.base import failpoints, spans
from hpresil.base.deadline import Deadline
from hpresil.base.errors import DeadlineExceeded, GenerationChanged, JobStopped, TransferFailed
from hpresil.membership import messages as m
from hpresil.runtime import step_machine as sm
from hpresil.runtime.background import step_back
from hpresil.runtime.frames import Frames
from hpresil.runtime.trainer import Trainer
from hpresil.snapshot.frame import Frame, holds
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.tracked import Tracked

POLL_S = 0.001
EARLY = len(SECTIONS) - 1  # sections without which no gradient can be computed


class Newcomer:
    """Copies what decisions name; the training thread calls `copy_state`."""

    def __init__(self, trainer: Trainer, frames: Frames, threads: int) -> None:
        self._trainer, self._engine = trainer, trainer.engine
        self._frames, self._threads = frames, threads
        self._rest: threading.Thread | None = None

    def copy_state(self) -> None:
        """Copy the version that the current decision names; returns as soon as slots can be run.

        Returns also if there is a newer view: ask the machine again.

        Raises:
            Refused: The state does not fit this worker's objects.
            JobStopped: The job ended.
        """
        engine = self._engine
        engine.stamp("waiting")
        self._end_older()
        state = engine.state
        generation, version, where = state.decided, state.target, self._trainer.where()
        try:
            with spans.span("wait"):
                found = self._await_frame(generation, version)
            if found is None:
                return
            engine.stamp("restoring")
            failpoints.hit("restore.begin", **{**where, "step": version})
            with spans.span("restore", generation=generation) as restoring:
                frame = found if isinstance(found, Frame) else self._open(found)
                copy = _Copy(frame, self._trainer.tracked, version, self._threads)
                restoring.value = copy.frame.state.nbytes
                copy.begin(lambda: self._go_on(generation))
        except GenerationChanged:
            return
        except (TransferFailed, OSError) as error:
            self._failed(generation, error)
            engine.wait_until(
                lambda: engine.state.installed > generation, engine.config.outside_timeout_s, "another source"
            )
            return
        if not copy.begun:
            self._finish(copy, generation, version)
            return
        self._trainer.state_replaced()
        engine.change(lambda s: sm.computable(s, generation, version))
        self._rest = threading.Thread(
            target=self._finish_beside,
            args=(copy, generation, version),
            name="hpresil-arrival",
            daemon=True,
        )
        self._rest.start()

    def _end_older(self) -> None:
        """Wait for the copy of an older generation, which gives up within milliseconds of a newer view."""
        longest_s = self._engine.config.outside_timeout_s
        if self._rest is not None:
            self._rest.join(longest_s)
            if self._rest.is_alive():
                raise DeadlineExceeded(f"the copy for an older view has not ended within {longest_s:g} s")

    def _open(self, number: int) -> Frame:
        mapping = self._frames.filled(number)
        if mapping is None:
            raise TransferFailed(f"frame {number} is empty")
        return Frame(mapping)

    def _await_frame(self, generation: int, version: int) -> Frame | int | None:
        """Return the frame to read as soon as its source has begun to fill it.

        Its number if it is sealed for good, so that what is wrong with it is told; None after a newer view.
        """
        engine = self._engine
        deadline = Deadline(engine.config.outside_timeout_s, f"version {version} for generation {generation}")
        while True:
            with engine.changed:
                engine.check()
                if engine.state.installed > generation:
                    return None
            ready = self._ready(generation)
            if ready is not None:
                return ready.frame
            for number in range(len(self._frames)):
                mapping = self._frames.filled(number)
                if mapping is not None and holds(mapping, version, generation):
                    try:
                        return Frame(mapping, whole=False)
                    except TransferFailed:
                        pass  # its writer is just sealing it for one more piece: look again
            deadline.check()
            with engine.changed:
                engine.changed.wait(POLL_S)

    def _ready(self, generation: int) -> m.StateReady | None:
        ready = self._engine.frame
        return ready if ready is not None and ready.generation == generation else None

    # ------------------------------------------------------------------ the rest

    def _finish_beside(self, copy: _Copy, generation: int, version: int) -> None:
        engine = self._engine
        step_back()
        failpoints.hit("restore.rest", worker=engine.worker, rank=engine.state.rank, step=version)
        try:
            self._finish(copy, generation, version)
        except Exception as error:  # nobody looks at this thread; the training thread raises it
            engine.fail(error)

    def _finish(self, copy: _Copy, generation: int, version: int) -> None:
        """Copy the rest and say so."""
        engine = self._engine
        try:
            try:
                with spans.span("restore", generation=generation, value=copy.frame.state.nbytes):
                    copy.end(lambda: self._go_on(generation))
            except (TransferFailed, OSError) as error:
                self._failed(generation, error)
                return
            failpoints.hit("restore.end", worker=engine.worker, rank=engine.state.rank, step=version)
            self._await_notice(generation)
        except (GenerationChanged, JobStopped):
            return  # what is here is no version, and nobody takes it for one
        if not copy.begun:
            self._trainer.state_replaced()
        with engine.changed:
            update = sm.state_arrived if copy.begun else _installed(version)
            engine.state = after = update(engine.state, generation)
            if after.promised == generation and after.held == version:
                # After a newer view nothing is said: the frame is sound, and may have to be read again.
                engine.send(
                    m.Restored(generation=generation, version=version, state_bytes=copy.frame.state.nbytes)
                )
            engine.changed.notify_all()

    def _go_on(self, generation: int) -> None:
        if self._engine.state.installed > generation:
            raise GenerationChanged(f"generation {generation} ended before its state was copied")
        self._engine.check()

    def _await_notice(self, generation: int) -> None:
        """Wait until the agent counts this worker among the readers, so that it may say that it has read."""
        engine = self._engine
        engine.wait_until(
            lambda: engine.state.installed > generation or self._ready(generation) is not None,
            engine.config.outside_timeout_s,
            f"the notice that the frame of generation {generation} is sealed",
        )
        self._go_on(generation)

    def _failed(self, generation: int, error: Exception) -> None:
        """What was written so far is no version; the machine says "empty", so nobody uses it."""
        engine = self._engine
        engine.change(lambda s: sm.arrival_failed(s, generation))
        try:
            self._await_notice(generation)
        except GenerationChanged:
            return
        ready = self._ready(generation)
        assert ready is not None
        engine.send(m.RestoreFailed(generation=generation, frame=ready.frame, error=str(error)))


class _Copy:
    """One copy out of one frame. ``begun``: all but the last section is installed."""

    def __init__(self, frame: Frame, tracked: Tracked, version: int, threads: int) -> None:
        self.frame = frame
        self.frame.check_version(version)
        self.begun = False
        self._restoration = tracked.prepare(self.frame.state)
        self._threads = threads

    def begin(self, between: Callable[[], None]) -> None:
        """Install what a gradient needs, if that can be taken apart from the rest; ``between``: see `end`."""
        self._restoration.count_change()
        for section in SECTIONS[:EARLY]:
            self.frame.copy(self._restoration, section, self._threads, between)
        if self._restoration.may_finish_first():
            self._restoration.finish()
            self.begun = True

    def end(self, between: Callable[[], None]) -> None:
        """Install the rest; ``between`` is called now and then, and ends it by raising."""
        for section in SECTIONS[EARLY:]:
            self.frame.copy(self._restoration, section, self._threads, between)
        if not self.begun:
            self._restoration.finish()


def _installed(version: int) -> Callable[[sm.StepState, int], sm.StepState]:
    return lambda s, generation: sm.state_installed(s, generation, version)
