"""``--local-nodes K``: K agents on this machine, each with its own workers and memory.

Each is a process of its own that knows the other agents only through the network: joining, losses, the
state of newcomers and the gradients (`comm.segments`) are as between machines.

An agent that is killed takes its workers with it, like a node that is lost; after `RETURN_S` another one
comes in its place, as long as one of the others lives. One that leaves with status 0 was drained, and stays
away. The first agent begins with the coordinator. Whichever has it at the end says how the job ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpresil.launch import whereabouts
from hpresil.native import set_pdeathsig

RETURN_S = 1.0
MAX_RETURNS = 16
LEAVE_S = 15.0
NOTHING_STARTED = 2
"""Exit status of an agent that did not begin; the others would wait for its coordinator."""
POLL_S = 0.05
LOOPBACK = "127.0.0.1"
PLACE = "HPRESIL_LOCAL_NODE"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, kw_only=True)
class LocalNode:
    """Where one of the agents stands; it finds this in its environment.

    ``returning``: it comes in place of one that was lost, so the coordinator lives elsewhere.
    """

    rank: int
    nodes: int
    port: int
    run_dir: str
    parent: int
    returning: bool

    @property
    def name(self) -> str:
        """Its name."""
        return name_of(self.rank)


def name_of(rank: int) -> str:
    """Return the name of a local node."""
    return f"node{rank}"


def place() -> LocalNode | None:
    """Return what this agent is, None if it was not started here; workers do not inherit it."""
    text = os.environ.pop(PLACE, "")
    if not text:
        return None
    found = LocalNode(**json.loads(text))
    set_pdeathsig(signal.SIGKILL)  # its guardian then does what is left
    if os.getppid() != found.parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def run_local_nodes(nodes: int, run_dir: Path, arguments: Sequence[str]) -> int:
    """Run a job on local nodes and return its exit status.

    Args:
        nodes: How many.
        run_dir: The job's run directory.
        arguments: The command line of ``hpresil``, which every agent gets as it is.
    """
    return _Family(nodes, run_dir, arguments).run()


class _Family:
    """The agents, by rank."""

    def __init__(self, nodes: int, run_dir: Path, arguments: Sequence[str]) -> None:
        self._nodes, self._run_dir = nodes, run_dir
        self._command = [sys.executable, "-m", "hpresil.cli.main", *arguments]
        self._reserved = _reserved_port()
        self._port = int(self._reserved.getsockname()[1])
        self._agents: dict[int, subprocess.Popen[bytes]] = {}
        self._due: dict[int, float] = {}
        self._returns = 0
        self._signals = 0

    def run(self) -> int:
        before = {number: signal.signal(number, self._signalled) for number in FORWARDED}
        try:
            for rank in range(self._nodes):
                self._start(rank)
            while self._go_on():
                time.sleep(POLL_S)
            if NOTHING_STARTED in [agent.poll() for agent in self._agents.values()]:
                self._signalled(signal.SIGTERM, None)
                self._signalled(signal.SIGTERM, None)
            self._end()
            status = self._agents[self._chief()].returncode
            return status if status >= 0 else 128 - status
        finally:
            self._end()
            self._reserved.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, rank: int) -> None:
        here = LocalNode(
            rank=rank,
            nodes=self._nodes,
            port=self._port,
            run_dir=str(self._run_dir),
            parent=os.getpid(),
            returning=rank in self._agents,
        )
        environment = {**os.environ, PLACE: json.dumps(asdict(here))}
        self._agents[rank] = subprocess.Popen(
            self._command, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )

    def _chief(self) -> int:
        """Return the rank of the agent that has the coordinator, or had it last."""
        place = whereabouts.read(self._run_dir)
        names = {name_of(rank): rank for rank in self._agents}
        return names.get(place.node, 0) if place is not None else 0

    def _go_on(self) -> bool:
        """Bring a node that was lost back after a while; return whether the job still runs."""
        ended = {rank: agent.returncode for rank, agent in self._agents.items() if agent.poll() is not None}
        if len(ended) == len(self._agents) or ended.get(self._chief(), -1) >= 0:
            return False
        for rank in [rank for rank, status in ended.items() if status < 0]:
            due = self._due.setdefault(rank, time.monotonic() + RETURN_S)
            if time.monotonic() >= due and self._returns < MAX_RETURNS and not self._signals:
                del self._due[rank]
                self._returns += 1
                self._start(rank)
        return True

    def _signalled(self, number: int, frame: object) -> None:
        """The first signal drains the job, through one of the agents; a second kills all."""
        self._signals += 1
        alive = [agent for agent in self._agents.values() if agent.poll() is None]
        for agent in alive[: None if self._signals > 1 else 1]:
            agent.send_signal(number)

    def _end(self) -> None:
        """Wait for the other agents to leave; kill those that do not."""
        end = time.monotonic() + LEAVE_S
        while any(agent.poll() is None for agent in self._agents.values()) and time.monotonic() < end:
            time.sleep(POLL_S)
        for agent in self._agents.values():
            if agent.poll() is None:
                agent.kill()
            agent.wait()


def _reserved_port() -> socket.socket:
    """Return a socket bound to a free port, so that the system gives the port to nobody else.

    It does not listen: the agent that has the coordinator may, because both allow that the address is reused.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, 0))
    return sock
