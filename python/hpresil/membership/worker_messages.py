"""The messages between a worker and its agent, over a Unix socket.

A frame is a 4-byte big-endian length and one MessagePack map, tagged with its type (see `framing`). A worker
id is unique for the life of the job and never used again; a rank is a place in a view. Versions: -1 means "no
state". All times are monotonic seconds of the sender's machine.
"""

from __future__ import annotations

from typing import Union

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Base of every message."""


# --------------------------------------------------------------------------- worker → agent


class Hello(Message, frozen=True, kw_only=True):
    """First frame of a worker: who it is."""

    worker: int
    pid: int


class Ready(Message, frozen=True, kw_only=True):
    """The worker reached its step loop and waits for a view.

    ``facts`` are what must be equal on all workers (platform, settings, names, shapes and dtypes
    of the tracked state), flattened to strings in a fixed order. ``version`` is the version of a
    checkpoint it has loaded, else -1. ``pristine``: its state is still as the script built it, so
    it may serve as version 0; false after the dry step of a spare.
    """

    facts: dict[str, str]
    version: int = -1
    pristine: bool = True


class Report(Message, frozen=True, kw_only=True):
    """The worker's promise for ``generation``: nothing older can make it commit any more.

    ``phase``: "empty" (no state), "computing", or "holding" (has voted with a complete reduced
    gradient). ``kept``: the slots of step ``version`` that it has finished or is working on;
    ``done``: those of them it has finished.
    """

    generation: int
    version: int
    phase: str
    kept: list[int] = []
    done: list[int] = []
    finished: bool = False


class Committed(Message, frozen=True, kw_only=True):
    """Step ``step`` is committed on this worker; it now holds version ``step + 1``.

    ``loss`` and ``grad_norm`` are ``float.hex()`` strings; ``samples`` and ``state`` are hex
    digests (``state`` empty unless it was due). ``repeatable``: a group of other workers would have
    had the same bits.
    """

    generation: int
    step: int
    loss: str
    grad_norm: str
    samples: str
    state: str
    world_size: int
    tokens: int = 0
    repeatable: bool = True


class Finished(Message, frozen=True, kw_only=True):
    """The worker left its loop at ``version`` and stays a source until `Release` arrives."""

    generation: int
    version: int
    drained: bool = False


class HandedOver(Message, frozen=True, kw_only=True):
    """The worker holds ``version`` and starts nothing before a newer view than that of ``generation``."""

    generation: int
    version: int


class SlotFailed(Message, frozen=True, kw_only=True):
    """User code raised before the commit, in ``slot`` (-1: outside of any slot).

    ``retry``: the worker means to run the slot once more in place; otherwise it leaves.
    ``kind``: "exception", "memory", "device", "nonfinite" or "usage"; only the first is retried in
    place, and the last two stop the job at once.
    """

    step: int
    slot: int
    kind: str
    error: str
    traceback: str
    retry: bool


class StateDiscarded(Message, frozen=True, kw_only=True):
    """User code raised after the commit of ``step``: this worker's state is worth nothing."""

    step: int
    error: str
    traceback: str


class Logged(Message, frozen=True, kw_only=True):
    """Values of ``run.log`` for one committed step."""

    step: int
    values: dict[str, float | int | str]


class Footprint(Message, frozen=True, kw_only=True):
    """The size in bytes a frame must have to hold this worker's state."""

    frame_bytes: int


class Served(Message, frozen=True, kw_only=True):
    """The source sealed ``version`` into arena frame ``frame``."""

    generation: int
    version: int
    frame: int
    frame_bytes: int


class ServeFailed(Message, frozen=True, kw_only=True):
    """The source could not fill the frame."""

    generation: int
    frame: int
    error: str


class Restored(Message, frozen=True, kw_only=True):
    """The newcomer holds ``version`` now."""

    generation: int
    version: int
    state_bytes: int


class RestoreFailed(Message, frozen=True, kw_only=True):
    """The newcomer could not read the frame (bad checksum, truncated)."""

    generation: int
    frame: int
    error: str


class GroupBuilt(Message, frozen=True, kw_only=True):
    """The process group of ``generation`` is up on this worker."""

    generation: int


class GroupLost(Message, frozen=True, kw_only=True):
    """A collective of ``generation`` failed on this worker though no newer view is known to it.

    If nobody turns out to be lost, the coordinator installs a new view with the same members.
    """

    generation: int
    error: str


class Saved(Message, frozen=True, kw_only=True):
    """The state of ``version`` is durable in ``path``; ``error`` is empty on success."""

    version: int
    path: str
    error: str = ""


class StoreSet(Message, frozen=True, kw_only=True):
    """Set a key of the rendezvous store in the name space of ``generation``."""

    generation: int
    key: str
    value: bytes


class StoreGet(Message, frozen=True, kw_only=True):
    """Ask for keys; answered by `StoreValues` when all are there, or never if the generation ends."""

    request: int
    generation: int
    keys: list[str]


FromWorker = Union[
    Hello, Ready, Report, Committed, Finished, HandedOver, SlotFailed, StateDiscarded, Logged, Footprint,
    Served, ServeFailed, Restored, RestoreFailed, GroupBuilt, GroupLost, Saved, StoreSet, StoreGet,
]  # fmt: skip


# --------------------------------------------------------------------------- agent → worker


class StandBy(Message, frozen=True, kw_only=True):
    """You are a spare for now: make a dry step, then say `Ready` with ``pristine=False``."""


class View(Message, frozen=True, kw_only=True):
    """The members of ``generation``, by rank. Sent to members and, so that they know, to spares."""

    generation: int
    members: list[int]


class Decision(Message, frozen=True, kw_only=True):
    """What the members of ``generation`` do, made from all their reports.

    Everyone ends at version ``target``. ``sources[w]`` is where newcomer ``w`` copies its state
    from: a worker id, or -1 for the newest sealed frame of ``store``'s agent. ``roll``: the holding
    workers one version behind, which apply the gradient they hold. ``slots[r]``: the slots of step ``target``
    rank ``r`` carries, those it already has included. ``finished``: the loop ends at ``target``.
    ``initial``: no version exists yet; rank 0's state is version 0.
    """

    generation: int
    target: int
    sources: dict[int, int]
    roll: list[int]
    slots: list[list[int]]
    finished: bool = False
    initial: bool = False
    store: str = ""


class Serve(Message, frozen=True, kw_only=True):
    """Copy your state of ``version`` into arena frame ``frame`` (memfd passed at start)."""

    generation: int
    version: int
    frame: int


class StateReady(Message, frozen=True, kw_only=True):
    """Arena frame ``frame`` holds sealed ``version``: copy it."""

    generation: int
    version: int
    frame: int


class Drain(Message, frozen=True, kw_only=True):
    """Leave after the current step; the wish travels with the next vote."""


class HandOver(Message, frozen=True, kw_only=True):
    """Start nothing after the current step before a newer view than that of ``generation``.

    The wish travels with the next vote, so that all members stop at the same version.
    """

    generation: int


class Save(Message, frozen=True, kw_only=True):
    """Make your current version durable under ``directory`` and answer `Saved`."""

    directory: str


class Release(Message, frozen=True, kw_only=True):
    """Leave the loop: every member has reported the last version, or this worker is not needed any more."""

    drained: bool = False


class Stop(Message, frozen=True, kw_only=True):
    """The job ends with an error: leave at once."""

    reason: str


class StoreValues(Message, frozen=True, kw_only=True):
    """Answer to `StoreGet`."""

    request: int
    values: list[bytes]


ToWorker = Union[
    StandBy, View, Decision, Serve, StateReady, Drain, HandOver, Save, Release, Stop, StoreValues
]
