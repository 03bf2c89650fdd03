"""User exceptions are bounded: a step block that raises is tried again once, then the job stops.

* Before the commit nothing has changed: the slot runs once more in place. A second exception at the
  same (step, slot), here or on another worker, is the user's bug; the coordinator stops the job with that
  traceback after the state before the step was saved.
* Out of memory and broken devices skip the retry: the worker leaves and its slots move.
* Between the loop and `apply` it is the same: the gradient is shown again, unless user code changed it.
* Once the optimizers run, this rank's state may be torn: it is discarded and copied from a peer, once a step.
* KeyboardInterrupt, SystemExit and GeneratorExit always go through.
* Misuse of the API and losses that are not finite are the same on every rank and stop the job at once.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

import torch

from hpresil.base.errors import DataError, HpresilError, JobStopped, NonFiniteLoss, UsageError
from hpresil.membership.messages import SlotFailed, StateDiscarded
from hpresil.runtime.trainer import Trainer

TRACEBACK_CHARACTERS = 20_000


class Failures:
    """Decides what becomes of an exception that leaves a step block."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._seen: set[tuple[int, int]] = set()

    def absorb(self, error: BaseException, trace: TracebackType | None, step: int) -> bool:
        """Return whether the block swallows ``error``."""
        if not isinstance(error, Exception) or isinstance(error, JobStopped):
            return False
        if isinstance(error, UsageError | NonFiniteLoss):
            self.misused(error, step)
            return False
        if self._trainer.rehearsing or (isinstance(error, HpresilError) and not isinstance(error, DataError)):
            return False
        if self._trainer.state_may_be_torn():
            return self._discard(error, step)
        return self._retry(error, step)

    def misused(self, error: HpresilError, step: int) -> None:
        """The error ends the job: say so, and wait until the state was saved."""
        kind = "nonfinite" if isinstance(error, NonFiniteLoss) else "usage"
        slot = self._trainer.drop_open_slot()
        self._trainer.engine.send(self._failed(error, step, slot, kind, retry=False))
        if self._trainer.engine.guard.writing:
            self._trainer.discard()  # the optimizers have run: what is here is no version
        self._trainer.engine.await_stop()

    def _retry(self, error: Exception, step: int) -> bool:
        engine = self._trainer.engine
        slot = self._trainer.drop_open_slot()
        kind = classify(error)
        retry = kind == "exception" and (step, slot) not in self._seen
        self._seen.add((step, slot))
        engine.send(self._failed(error, step, slot, kind, retry=retry))
        if retry:
            where = f"step {step}, slot {slot}" if slot >= 0 else f"step {step}"
            print(
                f"hpresil: {type(error).__name__} in {where} on worker {engine.worker}; "
                f"it runs once more: {error}",
                file=sys.stderr,
                flush=True,
            )
            engine.first_failure = error
            return True
        if kind == "exception":
            engine.await_stop()
        return False

    def _discard(self, error: Exception, step: int) -> bool:
        engine = self._trainer.engine
        engine.first_failure = error
        # The message goes first: the coordinator has to know why before it sees a report without a state.
        engine.send(StateDiscarded(step=step, error=_brief(error), traceback=_trace(error)))
        self._trainer.discard()
        print(
            f"hpresil: {type(error).__name__} after the commit of step {step} on worker {engine.worker}; "
            f"its state is copied from another worker: {error}",
            file=sys.stderr,
            flush=True,
        )
        return True

    def _failed(self, error: BaseException, step: int, slot: int, kind: str, *, retry: bool) -> SlotFailed:
        return SlotFailed(
            step=step, slot=slot, kind=kind, error=_brief(error), traceback=_trace(error), retry=retry
        )


def classify(error: Exception) -> str:
    """Return the kind of a user exception: "memory", "device" or "exception"."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):
        return "device"  # sticky: every later call on this context fails as well
    return "exception"


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
