"""All messages of the control plane under one name, and how they are framed.

A frame is a 4-byte big-endian length and one MessagePack map, tagged with its type. Frames above
``MAX_FRAME_BYTES`` are refused before they are read. Three parties exchange them:

* worker → agent and agent → worker (`FromWorker`, `ToWorker`): `worker_messages`;
* agent → coordinator and coordinator → agent (`FromAgent`, `ToAgent`): `agent_messages`.
"""

from __future__ import annotations

import struct
from typing import Union

import msgspec

from hpresil.membership.agent_messages import (
    Accepted as Accepted,
    AgentJoined as AgentJoined,
    Alive as Alive,
    Answered as Answered,
    Broken as Broken,
    Copied as Copied,
    Deliver as Deliver,
    Dismissed as Dismissed,
    DrainRequested as DrainRequested,
    FenceWorker as FenceWorker,
    FrameSealed as FrameSealed,
    FromAgent as FromAgent,
    Heard as Heard,
    JobEnded as JobEnded,
    NodeDrainRequested as NodeDrainRequested,
    Noted as Noted,
    Probe as Probe,
    Reached as Reached,
    Rejected as Rejected,
    Relayed as Relayed,
    ResizeRequested as ResizeRequested,
    Roster as Roster,
    StartWorker as StartWorker,
    StateCopy as StateCopy,
    ToAgent as ToAgent,
    Withdrawn as Withdrawn,
    WorkerLeft as WorkerLeft,
    WorkerLost as WorkerLost,
    WorkerStarted as WorkerStarted,
)
from hpresil.membership.worker_messages import (
    Committed as Committed,
    Decision as Decision,
    Drain as Drain,
    Finished as Finished,
    Footprint as Footprint,
    FromWorker as FromWorker,
    GroupBuilt as GroupBuilt,
    GroupLost as GroupLost,
    HandedOver as HandedOver,
    HandOver as HandOver,
    Hello as Hello,
    Logged as Logged,
    Message as Message,
    Ready as Ready,
    Release as Release,
    Report as Report,
    Restored as Restored,
    RestoreFailed as RestoreFailed,
    Save as Save,
    Saved as Saved,
    Serve as Serve,
    Served as Served,
    ServeFailed as ServeFailed,
    SlotFailed as SlotFailed,
    StandBy as StandBy,
    StateDiscarded as StateDiscarded,
    StateReady as StateReady,
    Stop as Stop,
    StoreGet as StoreGet,
    StoreSet as StoreSet,
    StoreValues as StoreValues,
    ToWorker as ToWorker,
    View as View,
)

MAX_FRAME_BYTES = 16 << 20
LENGTH = struct.Struct(">I")
AnyMessage = Union[FromWorker, ToWorker, FromAgent, ToAgent]
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return ``message`` as one frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return LENGTH.pack(len(body)) + body
