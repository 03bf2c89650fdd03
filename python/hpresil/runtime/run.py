"""`hpresil.init()` and the `Run` it returns: the user's door to the runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hpresil.base import spans
from hpresil.base.config import Config, resolve
from hpresil.base.errors import UsageError
from hpresil.comm.segments import stand_on
from hpresil.membership import messages as m
from hpresil.membership.state import Settings
from hpresil.native import show_spans
from hpresil.runtime import environment
from hpresil.runtime.buffers import Buffers
from hpresil.runtime.engine import Engine
from hpresil.runtime.facts import facts_of
from hpresil.runtime.frames import Frames
from hpresil.runtime.gradients import Gradients, Layout
from hpresil.runtime.link import AgentLink, Link, SoloLink
from hpresil.runtime.loop import Loop
from hpresil.runtime.newcomer import Newcomer
from hpresil.runtime.place import caller
from hpresil.runtime.serving import Server
from hpresil.runtime.step import Step
from hpresil.runtime.streams import OUTSIDE, set_generators
from hpresil.runtime.trainer import Trainer
from hpresil.snapshot.tracked import Tracked

Writer = Callable[[], None]

_run: Run | None = None


def init(config: Config | None = None) -> Run:
    """Join the job that ``hpresil run`` started, or be a job of one worker without it.

    Sets all default generators from the seed, so that every worker builds the same model. Call it once,
    on the main thread, before the model is built.

    Args:
        config: Settings of the script; a TOML file, ``HPRESIL_*`` variables and flags override them.

    Raises:
        ConfigError: A setting is wrong; the message names it and where it came from.
        UsageError: Called twice.
    """
    global _run
    if _run is not None:
        raise UsageError(
            f"{caller()}: hpresil.init() was called before in this process: keep the Run it returned"
        )
    _run = Run(resolve(config, os.environ), environment.read(os.environ))
    return _run


class Run:
    """One worker's part in a job. Made by `init`; training thread only."""

    def __init__(self, config: Config, place: environment.Environment) -> None:
        self.config = config
        self._place = place
        self._device = _device(place.local_rank)
        set_generators(config.seed, -1, OUTSIDE, "init")
        stand_on(place.node)
        self._link: Link
        if place.socket is None:
            self._link = SoloLink(Settings(workers=1, max_restarts=0))
        else:
            self._link = AgentLink(place.socket, place.worker, os.getpid())
        self._engine = Engine(
            worker=place.worker, config=config, send=self._link.send, page=place.page, hostname=place.address
        )
        self._tracked: Tracked | None = None
        self._patterns: Mapping[str, str] = {}
        self._loop_at: str | None = None
        self._writers: list[Writer] = []
        self._was_writer = False
        self._last_step: Step | None = None
        self._server: Server | None = None
        show_spans()
        spans.end("import")
        spans.begin("build")

    # ------------------------------------------------------------------ who and where

    @property
    def device(self) -> torch.device:
        """The device of this worker: ``cuda:LOCAL_RANK`` where there is one, else the CPU."""
        return self._device

    @property
    def rank(self) -> int | None:
        """This worker's place in the current view; None on a spare and before the first view."""
        return self._engine.state.rank

    @property
    def world_size(self) -> int:
        """The number of members of the current view; 0 before the first."""
        return len(self._engine.state.members)

    @property
    def generation(self) -> int:
        """The membership counter; 0 before the first view."""
        return self._engine.state.installed

    # ------------------------------------------------------------------ what survives

    def track(self, *, buffers: Mapping[str, str] | None = None, **objects: Any) -> None:
        """Name what must survive: modules, optimizers, schedulers, scalers, EMA copies.

        Call it once, before `steps`.

        Args:
            buffers: How module buffers that change in forward are combined, by name pattern: "slot0"
                (default), "mean" or "sum"; e.g. ``{"*.running_*": "mean"}``. The last matching pattern holds.
            objects: Anything with ``state_dict`` and ``load_state_dict``, by a name of your choice.

        Raises:
            ConfigError: Something cannot be stored and restored bit for bit.
            UsageError: Called twice, after `steps`, or with nothing.
        """
        if self._tracked is not None:
            raise UsageError(f"{caller()}: run.track() was called before: name everything in one call")
        if not objects:
            raise UsageError(
                f"{caller()}: run.track() needs what must survive: run.track(model=model, optimizer=opt)"
            )
        spans.end("build")
        with spans.span("track"):
            self._tracked = Tracked(objects)
        self._patterns = dict(buffers or {})

    # ------------------------------------------------------------------ the loop

    def steps(self, total: int) -> Iterator[Step]:
        """Yield the steps of the job, from the newest recoverable version up to ``total``.

        On a spare the first step is a rehearsal: `Step.committed` is false after its block. A drained job,
        and a spare that was not needed, leave through ``SystemExit(0)`` here.

        Args:
            total: The number of steps of the whole job, not of this process.

        Raises:
            UsageError: Called twice, or before `track`.
            Refused: This worker differs from the job.
            StateLost: No copy of the state is left.
            JobStopped: The job was stopped elsewhere.
        """
        if self._tracked is None:
            raise UsageError(f"{caller()}: call run.track(model=…, optimizer=…) before run.steps(…)")
        if self._loop_at is not None:
            raise UsageError(
                f"{caller()}: run.steps() was called before, at {self._loop_at}: a job has one loop"
            )
        if total < 0:
            raise UsageError(f"{caller()}: run.steps({total}): give the number of steps of the whole job")
        self._loop_at = caller()
        return self._steps(total, self._tracked)

    def _steps(self, total: int, tracked: Tracked) -> Iterator[Step]:
        config, place, engine = self.config, self._place, self._engine
        buffers = Buffers(tracked.buffers, self._patterns, config.slots)
        layout = Layout(tracked.parameters, buffers.tail(), readable=place.socket is not None)
        gradients = Gradients(layout, config.slots)
        trainer = Trainer(
            engine=engine, tracked=tracked, gradients=gradients, buffers=buffers, device=self._device
        )
        facts = facts_of(config, self._device, tracked.facts())
        frames = Frames(place.arenas)
        identity = {name: value for name, value in facts.items() if name.startswith(("config.", "state."))}
        self._server = server = Server(engine, tracked, buffers, frames, identity)
        newcomer = Newcomer(trainer, frames, server.threads)
        loop = Loop(trainer, server, newcomer=newcomer, facts=facts, resume=place.resume)
        self._link.start(engine.handle, engine.connection_lost)
        for step in loop.steps(total):
            self._call_writers(loop)
            self._last_step = step
            yield step

    def close(self) -> None:
        """End this worker's threads and its connection; the end of the process does it as well."""
        if self._server is not None:
            self._server.close()
        self._engine.groups.close()
        self._link.close()

    # ------------------------------------------------------------------ the outside world

    def log(self, **values: Any) -> None:
        """Deliver values of the last step to the run's metrics, once per committed step.

        Every rank calls it; the first delivery of a step and name counts. Ignored after a step that was not
        committed.

        Args:
            values: Numbers, one-element tensors or strings.

        Raises:
            UsageError: A value is of another type.
        """
        step = self._last_step
        if step is None or not step.committed:
            return
        plain: dict[str, float | int | str] = {}
        for name, value in values.items():
            value = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
            if not isinstance(value, float | int | str):
                raise UsageError(
                    f"{caller()}: run.log({name}=…) got a {type(value).__name__}: log numbers or strings"
                )
            plain[name] = value
        self._engine.send(m.Logged(step=step.index, values=plain))

    def on_writer(self, function: Writer) -> Writer:
        """Call ``function`` on the rank that becomes the writer (rank 0), and again when that moves.

        Use it as a decorator, before the loop. It runs on the training thread between two steps.
        """
        self._writers.append(function)
        return function

    def _call_writers(self, loop: Loop) -> None:
        if self.rank == 0 and not self._was_writer and self._writers:
            loop.await_state()  # a writer may want to write all of it
            if self.rank != 0 or not loop.has_state():
                return  # it was given up for a newer view; the next step asks again
            for function in self._writers:
                function()
        self._was_writer = self.rank == 0

    @contextmanager
    def pause_watchdog(self, reason: str) -> Iterator[None]:
        """Keep the hang rule from judging this worker while the block runs.

        What waits for this worker keeps its own limits: ``collective_timeout_s`` for members inside a
        reduction, 1.5 times ``outside_timeout_s`` for a change of the group.

        Args:
            reason: What takes long; it goes to the worker's log.
        """
        before = self._engine.phase_name
        print(f"hpresil: the watchdog is paused: {reason}", file=sys.stderr, flush=True)
        self._engine.stamp("paused")
        try:
            yield
        finally:
            self._engine.stamp(before)


def _device(local_rank: int) -> torch.device:
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")
