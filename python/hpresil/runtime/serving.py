"""Copies of this worker's state for others: a frame for a newcomer or a snapshot, a save on disk.

A thread of its own does it, while the training thread goes on computing: tracked state does not change
then. The live module buffers do, so the committed ones are copied in their place.
"""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from hpresil.base import failpoints, spans
from hpresil.base.errors import TransferFailed
from hpresil.checkpoint import saved
from hpresil.membership.messages import Footprint, Save, Saved, Serve, Served, ServeFailed
from hpresil.runtime.background import step_back
from hpresil.runtime.buffers import Buffers
from hpresil.runtime.engine import Engine
from hpresil.runtime.frames import Frames
from hpresil.runtime.step_machine import StepState
from hpresil.snapshot import filling, layout
from hpresil.snapshot.state import State
from hpresil.snapshot.tracked import Tracked

COMMIT_S = 2.0  # beyond it the version before the step is saved: the step can be made again from there


class Server:
    """Serves and saves; `frames` are the agent's memory (none without a launcher)."""

    def __init__(
        self, engine: Engine, tracked: Tracked, buffers: Buffers, frames: Frames, identity: dict[str, str]
    ) -> None:
        self._engine, self._tracked, self._buffers = engine, tracked, buffers
        self._frames, self._identity = frames, identity
        self.threads = engine.config.copy_threads or max(1, min(8, (os.cpu_count() or 2) // 2))
        self._announced = 0
        self._requests: queue.SimpleQueue[Serve | Save | Footprint | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hpresil-serve", daemon=True)
        self._thread.start()
        engine.on_copy = self._requests.put

    def close(self) -> None:
        """End the thread after the requests it already has."""
        self._requests.put(None)
        self._thread.join(60.0)

    def committed_state(self) -> State:
        """Return the state of the current version; valid while the guard is held."""
        state = self._tracked.capture()
        committed = dict(zip(self._buffers.names, self._buffers.committed, strict=True))
        tensors = [
            replace(entry, tensor=committed[entry.name]) if entry.name in committed else entry
            for entry in state.tensors
        ]
        return replace(state, tensors=tensors)

    def announce(self) -> None:
        """Tell the agent how large a frame must be, when that changed, and map the frames ahead of use.

        Costs a walk over the whole state: call it when its layout may have changed, not at every step.
        """
        if not len(self._frames):
            return
        nbytes = filling.size(self.committed_state())
        if nbytes > self._announced:
            self._announced = nbytes + nbytes // 64  # counters and schedules grow by a few digits
            self._engine.send(footprint := Footprint(frame_bytes=self._announced))
            self._requests.put(footprint)

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            if isinstance(request, Serve):
                with spans.span("serve", generation=request.generation):
                    self._serve(request)
            elif isinstance(request, Footprint):
                with (
                    spans.span("map frames"),
                    suppress(OSError),
                ):  # too little memory is an error when a copy needs it
                    self._frames.warm(request.frame_bytes)
            else:
                with spans.span("save"):
                    self._save(request)

    def _serve(self, request: Serve) -> None:
        engine = self._engine
        failpoints.hit("serve.begin", worker=engine.worker, rank=engine.state.rank, step=request.version)
        try:
            with engine.guard.reading(engine.config.outside_timeout_s):
                if engine.state.held != request.version:
                    raise TransferFailed(
                        f"worker {engine.worker} holds version {engine.state.held}, not {request.version}"
                    )
                state = self.committed_state()
                with spans.span("seal", generation=request.generation, value=state.nbytes):
                    nbytes = self._fill(request, state)
        except Exception as error:  # whatever it is, the coordinator has to hear of it: others wait
            engine.send(ServeFailed(generation=request.generation, frame=request.frame, error=repr(error)))
            return
        failpoints.hit("serve.end", worker=engine.worker, rank=engine.state.rank, step=request.version)
        engine.send(
            Served(
                generation=request.generation,
                version=request.version,
                frame=request.frame,
                frame_bytes=nbytes,
            )
        )

    def _fill(self, request: Serve, state: State) -> int:
        """Fill the frame in a thread that steps back as soon as the newcomer can compute."""
        plan = layout.plan(state)
        mapping = self._frames.mapped(request.frame, filling.size(state, plan))
        with ThreadPoolExecutor(1, "hpresil-fill") as once:
            filled = once.submit(
                filling.fill,
                mapping,
                state,
                version=request.version,
                generation=request.generation,
                threads=self.threads,
                plan=plan,
                on_rest=step_back,
            )
            return filled.result()

    def _await_commit(self) -> None:
        """Give a step that is being voted or applied time to end: another member may have ended it."""
        engine = self._engine
        with engine.changed:
            engine.changed.wait_for(lambda: not _step_ending(engine.state), COMMIT_S)

    def _save(self, request: Save) -> None:
        engine = self._engine
        version = -1
        self._await_commit()
        try:
            with engine.guard.reading(engine.config.outside_timeout_s):
                version = engine.state.held
                if version < 0:
                    raise TransferFailed(f"worker {engine.worker} has no state to save")
                path = saved.save(
                    request.directory,
                    self.committed_state(),
                    version=version,
                    identity=self._identity,
                    record={},
                )
        except Exception as error:  # whatever it is, the job's end waits for this answer
            why = isinstance(error, OSError) and error.strerror
            engine.send(Saved(version=version, path="", error=why or repr(error)))
            return
        engine.send(Saved(version=version, path=str(path)))


def _step_ending(state: StepState) -> bool:
    """Whether the next version is on its way here, unless the group fails first."""
    return state.phase == "committing" or (state.phase == "holding" and state.lost < state.decided)
