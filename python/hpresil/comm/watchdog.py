"""What torch's own NCCL watchdog has to be told so that a process outlives the loss of a peer.

torch gives each NCCL process group a watchdog thread, and by default that ends the process when a
collective fails: right for a job that is restarted as a whole, wrong for one that goes on in the same
processes. The table says each variable with its reason; sources are torch's ProcessGroupNCCL.hpp and its
page of environment variables. They are read when a process group is made, so they belong into a worker's
environment before that.

What a user has set stays; `contradictions` says what of it takes recovery in place away. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """A variable of the environment, the value a worker gets, and why."""

    name: str
    value: str
    reason: str


VARIABLES = (
    Variable(
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "0",
        "default 3 ends the process when a collective fails or is late; 2 aborts communicators from the "
        "watchdog, beside our own abort of the same ones. 0: the watchdog does nothing, hpresil aborts "
        "and says why",
    ),
    Variable(
        "TORCH_NCCL_RETHROW_CUDA_ERRORS",
        "0",
        "an error of CUDA that the watchdog meets, after an abort for instance, is thrown in its thread "
        "by default, which ends the process",
    ),
    Variable(
        "TORCH_NCCL_ENABLE_MONITORING",
        "0",
        "a second thread ends the process when the watchdog has been stuck for "
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC; while a communicator is aborted it may well be, and hangs are "
        "the agent's business, which asks who is to blame",
    ),
    Variable(
        "TORCH_NCCL_DUMP_ON_TIMEOUT",
        "0",
        "the dump after a timeout makes the process wait, and signals all ranks through the store to do "
        "the same",
    ),
    Variable(
        "TORCH_NCCL_PROPAGATE_ERROR",
        "0",
        "one rank's error would be told to all others through the store, and end them; the coordinator "
        "tells them",
    ),
    Variable(
        "TORCH_NCCL_BLOCKING_WAIT",
        "0",
        "with 1 each wait blocks the host until the collective's own timeout, which no newer generation "
        "interrupts",
    ),
    Variable(
        "TORCH_NCCL_DESYNC_DEBUG",
        "0",
        "writes to the store of a generation that may be gone at every collective",
    ),
    Variable(
        "TORCH_NCCL_USE_COMM_NONBLOCKING",
        "1",
        "a blocking initialisation or abort whose peer is gone cannot be left before NCCL's own timeouts",
    ),
)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to a worker's ``environment``: the variables it does not have yet."""
    return {v.name: v.value for v in VARIABLES if v.name not in environment}


def contradictions(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that is set so that recovery in place does not work."""
    return [
        f"{v.name}={environment[v.name]} is set; recovery in place needs {v.value}: {v.reason}"
        for v in VARIABLES
        if environment.get(v.name, v.value) != v.value
    ]
