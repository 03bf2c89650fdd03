"""What `hpresil status` shows: asked over a Unix socket of its own, answered with one JSON document.

    {"generation": 3, "step": 118, "members": [{"role", "node", "rank", "pid", "state", "slots"}, ...],
     "refused": {"stranger": 2, ...}, "last_recovery": {"detect_ms": 0.4, ...}}

Roles are "agent", "coordinator", "worker" (it has a rank) and "spare" (it has none, warm or not). The
state of a process is its phase; that of the coordinator the phase of the job. "refused" counts what was
turned away at this node's sockets, by kind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpresil.base.errors import HpresilError
from hpresil.base.phases import PHASES
from hpresil.launch.picture import Picture
from hpresil.launch.workers import WorkerProcess
from hpresil.membership import endpoint
from hpresil.membership.refusals import Refusals
from hpresil.membership.state import State, Worker
from hpresil.telemetry.events import Event
from hpresil.telemetry.recovery import last_phases, recoveries

ANSWER_S = 5.0
MAX_ANSWER_BYTES = 16 << 20

Status = dict[str, Any]


def describe(
    node: str,
    phase: str,
    picture: Picture,
    workers: list[WorkerProcess],
    story: list[Event],
    afar: Sequence[Worker] = (),
) -> Status:
    """Return the status of a job.

    Args:
        node: This node's name.
        phase: The coordinator's phase.
        picture: What the agent knows.
        workers: The live processes.
        story: The events of the last recoveries.
        afar: The workers of other nodes, as the coordinator knows them.
    """
    pid = os.getpid()
    members: list[dict[str, Any]] = [
        {"role": "agent", "node": node, "rank": None, "pid": pid, "state": "running", "slots": []},
        {"role": "coordinator", "node": node, "rank": None, "pid": pid, "state": phase, "slots": []},
    ]
    by_rank = sorted(workers, key=lambda w: (picture.rank(w.id) < 0, picture.rank(w.id), w.id))
    members += [_member(node, picture, worker) for worker in by_rank]
    members += [
        _entry(picture, worker.id, node=worker.node, pid=worker.pid, state=worker.phase) for worker in afar
    ]
    return {
        "generation": picture.generation,
        "step": picture.step,
        "members": members,
        "refused": dict(picture.refusals.counts),
        "last_recovery": last_phases(recoveries(story)),
    }


def _member(node: str, picture: Picture, worker: WorkerProcess) -> dict[str, Any]:
    state = PHASES[worker.page.read().phase] if worker.id in picture.ready else "starting"
    return _entry(picture, worker.id, node=node, pid=worker.pid, state=state)


def elsewhere(state: State, node: str) -> list[Worker]:
    """Return the workers that are not on ``node``, in the order of their ids."""
    return sorted((w for w in state.workers.values() if w.node != node), key=lambda worker: worker.id)


def _entry(picture: Picture, worker: int, *, node: str, pid: int, state: str) -> dict[str, Any]:
    rank = picture.rank(worker)
    return {
        "role": "spare" if rank < 0 else "worker",
        "node": node,
        "rank": None if rank < 0 else rank,
        "pid": pid,
        "state": state,
        "slots": list(picture.slots[rank]) if 0 <= rank < len(picture.slots) else [],
    }


class Reporter:
    """Answers everybody of our user who connects; what they say is not read.

    Args:
        ask: Returns the answer.
        refusals: Counts those of other users.
    """

    def __init__(self, ask: Callable[[], Status], refusals: Refusals) -> None:
        self._ask, self._refusals = ask, refusals
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen at ``path``."""
        self._server = await asyncio.start_unix_server(self._answer, sock=endpoint.listening_socket(path))

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sock = writer.get_extra_info("socket")
            if not endpoint.is_same_user(sock):
                self._refusals.turn_away("other user", "process {} of user {}".format(*endpoint.peer(sock)))
            else:
                writer.write(json.dumps(self._ask()).encode())
                async with asyncio.timeout(ANSWER_S):
                    await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()


class NotRunning(HpresilError):
    """No job runs where it was looked for."""


def ask(run_dir: Path) -> Status:
    """Return the status of the job that runs in ``run_dir``.

    Raises:
        NotRunning: there is no such directory, or no job runs in it.
    """
    if not run_dir.is_dir():
        raise NotRunning(f"{run_dir} does not exist; name the directory of a running job with --run-dir")
    try:
        facts = json.loads((run_dir / "agent.json").read_text())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ANSWER_S)
            sock.connect(facts["socket"])
            answer = bytearray()
            while (data := sock.recv(1 << 16)) and len(answer) < MAX_ANSWER_BYTES:
                answer += data
        found: Status = json.loads(answer)
        return found
    except FileNotFoundError:
        raise NotRunning(f"no job runs in {run_dir} now") from None
    except TimeoutError:
        raise NotRunning(f"the agent of {run_dir} did not answer within {ANSWER_S:g} s") from None
    except (OSError, ValueError, KeyError) as error:
        raise NotRunning(f"no job runs in {run_dir}: its agent has gone without a word ({error})") from None
