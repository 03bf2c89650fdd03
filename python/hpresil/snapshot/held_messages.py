"""What a worker and the device holder of its GPU say to each other: one packet a message, one answer each.

The socket keeps packets apart, so there is no length in front. A packet is one MessagePack map, checked
against the types below; the memory itself travels beside it, as a descriptor.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec

from hpresil.base.errors import TransferFailed, UsageError
from hpresil.membership.framing import Direction
from hpresil.membership.worker_messages import Message

MAX_MESSAGE_BYTES = 1 << 16
MAX_ALLOCATIONS = 256
"""Of one holder. An allocation takes at least 2 MiB, so many tensors share one."""
UNSEALED = -1

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_./:-]{1,64}$")]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Names = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MAX_ALLOCATIONS)]
Sums = Annotated[dict[Name, Number], msgspec.Meta(min_length=1, max_length=MAX_ALLOCATIONS)]
Kind = Literal["busy", "stale", "unknown", "room", "device", "misuse"]


class Attach(Message, frozen=True, kw_only=True):
    """First: I am the worker at ``place`` (its rank on this GPU, or in the job) since ``generation``."""

    place: Number
    generation: Number


class Allocate(Message, frozen=True, kw_only=True):
    """Make memory under a new name; answered by `Passed`. It is not sealed."""

    name: Name
    nbytes: Annotated[int, msgspec.Meta(ge=1, le=(1 << 50))]


class Open(Message, frozen=True, kw_only=True):
    """Pass memory that is there; answered by `Passed`."""

    name: Name


class Change(Message, frozen=True, kw_only=True):
    """I am about to write to these: none of them is sealed from the answer on."""

    names: Names


class Seal(Message, frozen=True, kw_only=True):
    """These hold ``version``, whole and with these checksums; nothing writes to them until `Change`."""

    version: Number
    sums: Sums


class Drop(Message, frozen=True, kw_only=True):
    """Let go of it. The memory is gone when nobody maps it any more."""

    name: Name


class Look(Message, frozen=True, kw_only=True):
    """What is there, of all places? Needs no `Attach`."""


class Row(Message, frozen=True, kw_only=True):
    """One allocation: who sealed it when; ``version`` is `UNSEALED` if it is half written or never was."""

    place: int
    name: str
    nbytes: int
    generation: int = -1
    version: int = UNSEALED
    checksum: int = 0


class Welcome(Message, frozen=True, kw_only=True):
    """You have the place. ``device``: whose memory this is, by a name that all processes share."""

    device: str


class Done(Message, frozen=True, kw_only=True):
    """It is so."""


class Passed(Message, frozen=True, kw_only=True):
    """The memory's descriptor comes with this packet."""

    row: Row


class Rows(Message, frozen=True, kw_only=True):
    """What is there."""

    rows: tuple[Row, ...]


class Denied(Message, frozen=True, kw_only=True):
    """Nothing has changed. ``busy``: ask again, the place's last process is still there."""

    kind: Kind
    why: str


Request = Union[Attach, Allocate, Open, Change, Seal, Drop, Look]
Answer = Union[Welcome, Done, Passed, Rows, Denied]

TO_HOLDER: Direction[Request] = Direction("worker to device holder", Request, MAX_MESSAGE_BYTES)
FROM_HOLDER: Direction[Answer] = Direction("device holder to worker", Answer, MAX_MESSAGE_BYTES)


def packed(message: Message) -> bytes:
    """Return the packet of a message, of whatever is in it."""
    return msgspec.msgpack.encode(message)


def checked(request: Message, asked: str) -> bytes:
    """Return the packet of a request to the holder, which hangs up on what it cannot read.

    Raises:
        UsageError: It could not read this; the message says which value it is, and who was not ``asked``.
    """
    try:
        packet = packed(request)
        TO_HOLDER.decode(packet)
    except (TransferFailed, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{asked} was not asked: {type(request).__name__} cannot have such a value: "
            f"{error.__cause__ or error}; mend the call"
        ) from error
    return packet
