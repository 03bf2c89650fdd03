"""The messages of the control plane, and how they are framed.

A frame is a 4-byte big-endian length and one MessagePack map, tagged with its type. Frames above
``MAX_FRAME_BYTES`` are refused before they are read. Three parties exchange them:

* worker → agent and agent → worker over a Unix socket (`FromWorker`, `ToWorker`),
* agent → coordinator and coordinator → agent over a second one (`FromAgent`, `ToAgent`); an agent
  wraps what a worker says in `Relayed` and unwraps `Deliver` for its workers.

A worker id is unique for the life of the job and never used again; a rank is a place in a view.
Versions: -1 means "no state". All times are monotonic seconds of the sender's machine.
"""

from __future__ import annotations

import struct
from typing import Any, Union

import msgspec

MAX_FRAME_BYTES = 16 << 20
LENGTH = struct.Struct(">I")


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
    digests (``state`` empty unless it was due).
    """

    generation: int
    step: int
    loss: str
    grad_norm: str
    samples: str
    state: str
    world_size: int
    tokens: int = 0


class Finished(Message, frozen=True, kw_only=True):
    """The worker left its loop at ``version`` and stays a source until `Release` arrives."""

    generation: int
    version: int
    drained: bool = False


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
    Hello,
    Ready,
    Report,
    Committed,
    Finished,
    SlotFailed,
    StateDiscarded,
    Logged,
    Footprint,
    Served,
    ServeFailed,
    Restored,
    RestoreFailed,
    GroupBuilt,
    GroupLost,
    Saved,
    StoreSet,
    StoreGet,
]


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


class Save(Message, frozen=True, kw_only=True):
    """Make your current version durable under ``directory`` and answer `Saved`."""

    directory: str


class Release(Message, frozen=True, kw_only=True):
    """Every member has reported the last version: leave the loop."""

    drained: bool = False


class Stop(Message, frozen=True, kw_only=True):
    """The job ends with an error: leave at once."""

    reason: str


class StoreValues(Message, frozen=True, kw_only=True):
    """Answer to `StoreGet`."""

    request: int
    values: list[bytes]


ToWorker = Union[StandBy, View, Decision, Serve, StateReady, Drain, Save, Release, Stop, StoreValues]


# --------------------------------------------------------------------------- agent → coordinator


class AgentJoined(Message, frozen=True, kw_only=True):
    """First frame of an agent. ``address``: HOST:PORT at which other agents reach it; "" on one node.

    ``build``: the version of hpresil; agents of different versions do not work together.
    """

    node: str
    pid: int
    address: str = ""
    build: str = ""


class Alive(Message, frozen=True, kw_only=True):
    """Said every second by an agent of another node, so that its silence means something."""


class Reached(Message, frozen=True, kw_only=True):
    """Answer to `Probe`: the agents that were tried (node → HOST:PORT), and who could not be reached, why."""

    node: str
    tried: dict[str, str]
    failed: dict[str, str] = {}


class Noted(Message, frozen=True, kw_only=True):
    """An event on another node, for the job's list of events. Durations in seconds, times of that node."""

    event: str
    fields: dict[str, Any]


class Relayed(Message, frozen=True, kw_only=True):
    """Something a worker of this agent said."""

    worker: int
    said: FromWorker


class WorkerStarted(Message, frozen=True, kw_only=True):
    """The agent started a process for ``worker``."""

    worker: int
    node: str
    pid: int


class WorkerLost(Message, frozen=True, kw_only=True):
    """The worker is dead or was fenced.

    ``reason``: "killed" (a signal), "exited", "hung" (killed by the agent), "ended" (fenced after
    its mutex fired). ``step`` and ``slot`` are where its page says it was (-1: outside);
    ``armed``: it was inside a step. ``status``: exit status, or minus the signal number.
    """

    worker: int
    reason: str
    status: int | None = None
    step: int = -1
    slot: int = -1
    armed: bool = False


class FrameSealed(Message, frozen=True, kw_only=True):
    """The newest sealed frame of ``node``'s agent holds ``version``; -1: it has none any more."""

    node: str
    version: int
    frame: int


class Broken(Message, frozen=True, kw_only=True):
    """Something the coordinator cannot see makes the job impossible; ``worker`` and ``step``: -1 for none."""

    reason: str
    worker: int = -1
    step: int = -1


class DrainRequested(Message, frozen=True, kw_only=True):
    """Somebody wants the job to end at the next step boundary."""

    why: str


FromAgent = Union[
    AgentJoined,
    Alive,
    Reached,
    Noted,
    Relayed,
    WorkerStarted,
    WorkerLost,
    FrameSealed,
    Broken,
    DrainRequested,
]


# --------------------------------------------------------------------------- coordinator → agent


class Deliver(Message, frozen=True, kw_only=True):
    """Pass ``what`` to worker ``to``."""

    to: int
    what: ToWorker


class StartWorker(Message, frozen=True, kw_only=True):
    """Start a process for the new worker id ``worker``; ``index`` is its place on the node."""

    worker: int
    node: str
    index: int
    spare: bool


class FenceWorker(Message, frozen=True, kw_only=True):
    """Kill the worker's process group and report `WorkerLost`; its messages are ignored now."""

    worker: int
    why: str


class JobEnded(Message, frozen=True, kw_only=True):
    """The job is over. ``status`` 0: done or drained. ``worker`` (-1: none) and ``traceback`` say
    whose failure it was, if somebody's."""

    status: int
    reason: str
    worker: int = -1
    step: int = -1
    slot: int = -1
    traceback: str = ""
    saved: str = ""


class Probe(Message, frozen=True, kw_only=True):
    """Try to reach these agents (node → HOST:PORT) and answer `Reached`."""

    node: str
    addresses: dict[str, str]


class Roster(Message, frozen=True, kw_only=True):
    """Where the workers of ``generation`` are (worker → node), and the nodes (node → HOST:PORT).

    Precedes everything about that generation.
    """

    generation: int
    workers: dict[int, str]
    addresses: dict[str, str]


class Rejected(Message, frozen=True, kw_only=True):
    """This agent is not taken in, or not any more; what it runs must end."""

    node: str
    reason: str


ToAgent = Union[Deliver, StartWorker, FenceWorker, Probe, Roster, Rejected, JobEnded]


AnyMessage = Union[FromWorker, ToWorker, FromAgent, ToAgent]
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return ``message`` as one frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return LENGTH.pack(len(body)) + body
