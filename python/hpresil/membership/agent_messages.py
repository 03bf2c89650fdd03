"""The messages between an agent and the coordinator, over a Unix socket or a port.

An agent wraps what a worker says in `Relayed`, and unwraps `Deliver` for its workers. What is said in
`worker_messages` about ids, versions and times holds here too.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from hpresil.membership.worker_messages import FromWorker, Message, ToWorker

# --------------------------------------------------------------------------- agent → coordinator


class AgentJoined(Message, frozen=True, kw_only=True):
    """First frame of an agent. ``address``: HOST:PORT at which other agents reach it; "" on one node.

    ``build``: the version of hpresil; agents of different versions do not work together. An agent that was
    in the job before comes with the ``term`` of the last coordinator it was bound to, the newest
    ``generation`` it has seen, its live ``workers``, with how many messages it had ``said`` before the next
    one, and with the term and revision of the newest ``copy`` of the state that it holds.
    """

    node: str
    pid: int
    address: str = ""
    build: str = ""
    term: int = 0
    generation: int = 0
    workers: list[int] = msgspec.field(default_factory=list)
    said: int = 0
    copy: tuple[int, int] = (0, 0)


class Alive(Message, frozen=True, kw_only=True):
    """Said every second by an agent of another node, so that its silence means something.

    ``at``: its monotonic clock then, in seconds, so that times of that node mean something elsewhere.
    """

    at: float


class Reached(Message, frozen=True, kw_only=True):
    """Answer to `Probe`: the agents that were tried (node → HOST:PORT), and who could not be reached, why."""

    node: str
    tried: dict[str, str]
    failed: dict[str, str] = msgspec.field(default_factory=dict)


class Copied(Message, frozen=True, kw_only=True):
    """The agent holds a copy of the state of ``term`` in which ``proposal`` stands (see `quorum`)."""

    node: str
    term: int
    proposal: int


class Noted(Message, frozen=True, kw_only=True):
    """An event for the job; its times and ``at``, when it was said, are of that node's monotonic clock."""

    at: float
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


class WorkerLeft(Message, frozen=True, kw_only=True):
    """The process of a worker that had been released has ended, with whatever status."""

    worker: int
    status: int | None = None


class FrameSealed(Message, frozen=True, kw_only=True):
    """The newest sealed frame of ``node``'s agent holds ``version``; -1: it has none any more."""

    node: str
    version: int
    frame: int


class Broken(Message, frozen=True, kw_only=True):
    """Something the coordinator cannot see makes the job impossible; ``worker`` and ``step``: -1 for none.

    ``sound``: nothing is wrong with the state, so it is saved first.
    """

    reason: str
    sound: bool = False
    worker: int = -1
    step: int = -1


class DrainRequested(Message, frozen=True, kw_only=True):
    """Somebody wants the job to end at the next step boundary."""

    why: str


class NodeDrainRequested(Message, frozen=True, kw_only=True):
    """Somebody at ``node`` wants the workers of node ``target`` to leave; answered by `Answered`."""

    node: str
    request: int
    target: str


class ResizeRequested(Message, frozen=True, kw_only=True):
    """Somebody at ``node`` wants the full group to have ``workers`` members; answered by `Answered`."""

    node: str
    request: int
    workers: int


FromAgent = Union[
    AgentJoined,
    Alive,
    Reached,
    Copied,
    Noted,
    Relayed,
    WorkerStarted,
    WorkerLost,
    WorkerLeft,
    FrameSealed,
    Broken,
    DrainRequested,
    NodeDrainRequested,
    ResizeRequested,
]


# --------------------------------------------------------------------------- coordinator → agent


class Accepted(Message, frozen=True, kw_only=True):
    """Answer to `AgentJoined`: the agent is bound to the coordinator of ``term``.

    ``workers``: those of its processes that are still in the job; it kills the others. ``frames_key``: what
    agents that take frames from each other prove themselves with.
    """

    term: int
    workers: list[int]
    frames_key: bytes


class Withdrawn(Message, frozen=True, kw_only=True):
    """Too few agents came to the coordinator of ``term``: it never begins, and who is bound to it is free."""

    term: int


class StateCopy(Message, frozen=True, kw_only=True):
    """The coordinator's ``state`` at its time ``at``, for the agent that may have to take over.

    Of two copies the one of the later ``term`` is newer, then the one of the higher ``revision``.
    ``shift_s``: what to add to the coordinator's clock to have the one that events are told by.
    ``holds``: how many messages of each agent have gone into the state. ``frames_key``: see `Accepted`.
    """

    term: int
    revision: int
    holds: dict[str, int]
    proposal: int
    at: float
    shift_s: float
    state: bytes
    frames_key: bytes


class Heard(Message, frozen=True, kw_only=True):
    """The coordinator lives, and a copy of its state sent before this holds ``said`` messages of yours."""

    said: int


class Deliver(Message, frozen=True, kw_only=True):
    """Pass ``what`` to worker ``to``."""

    to: int
    what: ToWorker


class StartWorker(Message, frozen=True, kw_only=True):
    """Start a process for the new worker id ``worker``; ``index`` is its place on the node.

    ``restart``: it takes the place of a process that was lost there, and counts as a restart.
    """

    worker: int
    node: str
    index: int
    spare: bool
    restart: bool = False


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

    Precedes everything about that generation; not sent as long as the job has had only one node.
    """

    generation: int
    workers: dict[int, str]
    addresses: dict[str, str]


class Rejected(Message, frozen=True, kw_only=True):
    """This agent is not taken in, or not any more; what it runs must end."""

    node: str
    reason: str


class Dismissed(Message, frozen=True, kw_only=True):
    """This node is drained: nothing runs there any more, and its agent leaves with status 0."""

    node: str
    reason: str


class Answered(Message, frozen=True, kw_only=True):
    """Answer to ``request`` of ``node``. ``done``: it is the last one, else the wish is accepted and
    under way. ``failed``: nothing will come of it, and ``text`` says why."""

    node: str
    request: int
    text: str
    done: bool = True
    failed: bool = False


ToAgent = Union[
    Accepted, Withdrawn, StateCopy, Heard, Deliver, StartWorker, FenceWorker, Probe, Roster, Rejected,
    Dismissed, Answered, JobEnded,
]  # fmt: skip
