"""What agents say to each other, one request a connection (see `launch.peers`)."""

from __future__ import annotations

from typing import Union

import msgspec

from hpresil.membership.agent_messages import AgentJoined, StateCopy
from hpresil.membership.framing import Direction
from hpresil.membership.worker_messages import Message

MAX_REQUEST_BYTES = 1 << 16


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a frame, or is getting it, and how to take it from there.

    ``host`` and ``port`` over the network, ``socket`` from processes of the same ``machine``.
    """

    host: str = ""
    port: int = 0
    machine: str = ""
    socket: str = ""


class Ping(Message, frozen=True, kw_only=True):
    """Ask whether anybody is there."""


class Pong(Message, frozen=True, kw_only=True):
    """Somebody is. ``frames``: how to get at the frames there."""

    frames: Holder = Holder()


class Fetch(Message, frozen=True, kw_only=True):
    """I want the frame of ``version`` for ``generation``; ``stored``: the newest sealed one, now.

    ``holder``: who asks, and passes on what it gets. `Ping` follows every second until it hangs up: it has
    the frame, or does not want it any more.
    """

    node: str
    generation: int
    version: int
    stored: bool
    holder: Holder = Holder()


class Coming(Message, frozen=True, kw_only=True):
    """The frame has ``frame_bytes``; -1: there is no such frame, and ``error`` says why.

    ``head`` is its first page. ``holders`` have the rest, in the order of preference, the source last.
    """

    frame_bytes: int
    head: bytes = b""
    holders: tuple[Holder, ...] = ()
    error: str = ""


class Stand(Message, frozen=True, kw_only=True):
    """``node`` has lost the coordinator and would be the next one, in ``term``."""

    node: str
    term: int


class Vote(Message, frozen=True, kw_only=True):
    """Answer to `Stand`. ``granted``: the agent has no coordinator either and will follow.

    ``term``: the newest it knows of. ``coordinator``: HOST:PORT of the one it is bound to, "" if it is
    bound to none. ``copy``: its copy of the state.
    """

    granted: bool
    term: int
    coordinator: str = ""
    copy: StateCopy | None = None


class Elected(Message, frozen=True, kw_only=True):
    """The coordinator of ``term`` lives on ``node``, and agents come in at ``address``."""

    node: str
    term: int
    address: str


ASKED: Direction[Union[Ping, Fetch, Stand, Elected, AgentJoined]] = Direction(
    "agent to agent", Union[Ping, Fetch, Stand, Elected, AgentJoined], MAX_REQUEST_BYTES
)
ANSWERED: Direction[Union[Pong, Coming, Vote]] = Direction("agent to asking agent", Union[Pong, Coming, Vote])
