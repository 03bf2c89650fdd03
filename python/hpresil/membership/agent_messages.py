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

    ``build``: the version of hpresil; agents of different versions do not work together.
    """

    node: str
    pid: int
    address: str = ""
    build: str = ""


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


class Noted(Message, frozen=True, kw_only=True):
    """An event on another node, for the job's list of events; times are of that node's monotonic clock.

    ``at``: that clock when this was said, in seconds.
    """

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

    Precedes everything about that generation; not sent as long as the job has had only one node.
    """

    generation: int
    workers: dict[int, str]
    addresses: dict[str, str]


class Rejected(Message, frozen=True, kw_only=True):
    """This agent is not taken in, or not any more; what it runs must end."""

    node: str
    reason: str


ToAgent = Union[Deliver, StartWorker, FenceWorker, Probe, Roster, Rejected, JobEnded]
