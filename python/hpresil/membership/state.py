"""What the coordinator knows, as one immutable value.

Everything that a decision depends on is in `State`, its settings included, so that replaying a
journal of events gives the same value again. Dictionaries inside are never changed in place.

Phases of a job: "joining" (no agent yet), "forming" (workers start, no view yet), "regrouping" (a
view is installed, reports are outstanding), "training" (a decision was made), "waiting" (no view
is possible now), "stopping" (somebody saves before the end), "ended".

Phases of a worker: "starting" (has not said `Ready`), "ready" (said so, state as the script built
it), "standby" (makes its dry step), "spare" (has made it, or was a member), "member", "leaving" (released
before the job's end), "fenced" (told to be killed). A lost worker is taken out, and so is one that has
left; its id is never used again.
"""

from __future__ import annotations

import msgspec

from hpresil.base.errors import ConfigError
from hpresil.membership.messages import Decision, Report

READY = ("ready", "spare")
COMING = ("starting", "standby", "ready", "spare")
KEPT_LOSSES = 32


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the parts of the state."""


class Settings(Value, frozen=True, kw_only=True):
    """What the command line fixes for the job; times in seconds.

    Attributes:
        workers: Members of the full group, until it is resized.
        host: The node on which the first coordinator lives.
        leased: Whoever holds the lease decides, however few nodes are bound to it (see `quorum`).
        nnodes: How many nodes the first view waits for.
        places: The most processes of one node; 0: as many as the job has.
        spares: Workers held in reserve.
        min_workers: The smallest group that may train.
        max_restarts: Replacement processes over the whole job.
        min_workers_timeout_s: How long to wait with fewer than ``min_workers``.
        join_timeout_s: How long a worker may take until it is ready.
        save_timeout_s: How long one worker may take to save before the end.
        report_timeout_s: How long a member may take to answer a view or to reach the last version.
        group_grace_s: How long to wait for the news of a loss after a group failed for no known reason.
        restore_timeout_s: How long newcomers may take to copy the state.
        leave_timeout_s: How long a worker that was released may take to end before it is killed.
        save_directory: Where the state goes when the job ends early; empty: nowhere.
        first_generation: The generation before the first view; more than 0 in a resumed job.
        resumed: Workers start from a checkpoint.
    """

    workers: int
    host: str = ""
    leased: bool = False
    nnodes: int = 1
    places: int = 0
    spares: int = 0
    min_workers: int = 1
    max_restarts: int = 16
    min_workers_timeout_s: float = 600.0
    join_timeout_s: float = 600.0
    save_timeout_s: float = 120.0
    report_timeout_s: float = 900.0
    group_grace_s: float = 2.0
    restore_timeout_s: float = 600.0
    leave_timeout_s: float = 60.0
    save_directory: str = ""
    first_generation: int = 0
    resumed: bool = False

    def check(self) -> None:
        """Raise ConfigError if no job can run with these."""
        if self.workers < 1:
            raise ConfigError(f"there are {self.workers} workers; there must be at least 1")
        if self.spares < 0 or self.max_restarts < 0 or self.first_generation < 0:
            raise ConfigError("spares, max-restarts and the first generation must not be negative")
        if not 1 <= self.min_workers <= self.workers:
            raise ConfigError(
                f"min-workers is {self.min_workers}; possible is 1 to the number of workers ({self.workers})"
            )


class Worker(Value, frozen=True, kw_only=True):
    """One live worker process.

    ``seat``: it is one of those the first view waits for. ``since``: when its phase began.
    ``version``: the version it had at the last decision or transfer, -1 if it has no state.
    ``copying``: it was told to copy the state, and what became of that is not known yet.
    ``finished``: the version at which it left its loop, -1 before. ``left``: it announced its exit
    with a failure, so that the exit is not counted again.
    """

    id: int
    index: int
    node: str
    since: float
    phase: str = "starting"
    seat: bool = False
    connected: bool = False
    pid: int = 0
    pristine: bool = False
    version: int = -1
    copying: bool = False
    finished: int = -1
    left: bool = False
    refused: bool = False


class Loss(Value, frozen=True, kw_only=True):
    """A worker that is gone, for messages and for the status page."""

    worker: int
    node: str
    index: int
    rank: int
    was_ready: bool
    reason: str
    status: int | None
    step: int
    slot: int
    at: float


class Failure(Value, frozen=True, kw_only=True):
    """How often user code failed at one place, over the whole job."""

    step: int
    slot: int
    count: int


class Node(Value, frozen=True, kw_only=True):
    """One agent that is connected.

    ``order``: how many joined before it. ``unproven``: the agents whose word is still awaited that they
    reach it; ``untried``: those of which it has not said yet that it reaches them. ``started``: processes
    started there so far, without those that left. ``draining``: its workers are to leave, since
    ``draining_since``.
    """

    name: str
    order: int
    address: str
    since: float
    unproven: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    started: int = 0
    draining: bool = False
    draining_since: float = 0.0


class Wish(Value, frozen=True, kw_only=True):
    """A request that was accepted and is to be answered when it is done.

    ``node`` and ``request``: who asked. ``drains``: the node to be drained; else the group is resized.
    """

    node: str
    request: int
    drains: str = ""


class Sealed(Value, frozen=True, kw_only=True):
    """The newest sealed frame of an agent."""

    version: int
    frame: int


class Ending(Value, frozen=True, kw_only=True):
    """Why the job ends, while somebody saves. ``saver``: who, -1 before the first was asked."""

    status: int
    reason: str
    worker: int = -1
    step: int = -1
    slot: int = -1
    traceback: str = ""
    drained: bool = False
    saver: int = -1
    since: float = 0.0
    tried: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()


class State(Value, frozen=True, kw_only=True):
    """Everything the coordinator knows.

    Attributes:
        host: The node the coordinator lives on; ``term``: which coordinator of the job this is, from 1.
        quorum: The nodes whose consent it takes to decide; ``proposed``: those who shall be next, the
            ``proposal``th change; ``agreed``: the nodes that know of it (see `quorum`).
        nodes: The agents that are connected; ``joined``: how many there were over the whole job.
        sealed: The newest sealed frame of each node that has one.
        drained: Whether the members leave because they were asked to.
        drained_nodes: The nodes that were drained and have not joined again since.
        wanted: Members of the full group, as last asked for.
        resizing: The group does not have that size yet since that was asked for.
        wishes: What is to be answered.
        members: The live workers of the current view, by rank.
        hand_over: The generation whose members were asked to hand over, if that is the current one.
        handed: The members that have done so; ``handed_since``: when the first one had.
        reports: What they reported for the current generation.
        decision: Made from all of the reports; None before.
        restoring: Members that copy state since the decision.
        trained: The first state is installed on all members, so spares may dirty theirs.
        unseeded: "waiting" is for a worker whose state is as the script built it.
        newest: The highest version that ever existed, as far as is known; -1 for none.
        newest_by: The member that was first to report it since the last decision, else -1.
        avoid: Sources that failed in the recovery under way.
        group_lost: Why the group of this generation failed, if it did and nobody is known to be lost.
        group_losses: How many groups failed so since the last committed step.
        reason: Why the current view or waiting came about.
    """

    settings: Settings
    phase: str = "joining"
    since: float = 0.0
    reason: str = ""
    host: str = ""
    term: int = 1
    quorum: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()
    proposal: int = 0
    agreed: tuple[str, ...] = ()
    nodes: dict[str, Node] = {}
    joined: int = 0
    drained_nodes: tuple[str, ...] = ()
    wanted: int = 0
    resizing: bool = False
    wishes: tuple[Wish, ...] = ()
    generation: int = 0
    members: tuple[int, ...] = ()
    workers: dict[int, Worker] = {}
    hand_over: int = 0
    handed: tuple[int, ...] = ()
    handed_since: float = 0.0
    reports: dict[int, Report] = {}
    decision: Decision | None = None
    restoring: tuple[int, ...] = ()
    trained: bool = False
    unseeded: bool = False
    newest: int = -1
    newest_by: int = -1
    resumed: bool = False
    sealed: dict[str, Sealed] = {}
    facts: dict[str, str] = {}
    facts_of: int = -1
    slots: int = 0
    next_worker: int = 0
    restarts: int = 0
    refused: int = 0
    exited: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()
    discards: tuple[int, ...] = ()
    restore_failures: int = 0
    avoid: tuple[int, ...] = ()
    group_lost: str = ""
    group_lost_at: float = 0.0
    group_losses: int = 0
    finishing_since: float = 0.0
    draining: str = ""
    drained: bool = False
    ending: Ending | None = None
    losses: tuple[Loss, ...] = ()


def begin(settings: Settings, now: float) -> State:
    """Return the state before the first event. Raises ConfigError for settings that cannot work."""
    settings.check()
    return State(
        settings=settings,
        since=now,
        host=settings.host,
        wanted=settings.workers,
        generation=settings.first_generation,
        resumed=settings.resumed,
    )
