"""Four agents on two machines that move frames between them, and their coordinator: processes to kill."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from frame_bytes import known_frame
from hpresil import native
from hpresil.base.errors import TransferFailed
from hpresil.snapshot import preface

PROGRAM = Path(__file__).with_name("exchange_agent.py")
MACHINES = {"n0": "one", "n1": "one", "n2": "two", "n3": "two"}
WORKERS = dict(enumerate(MACHINES))
NUMBER = {node: worker for worker, node in WORKERS.items()}
NBYTES = 24 << 20
DEADLINE_S = 30.0

Event = dict[str, Any]


class AgentProcess:
    """One agent; ``events`` are what it has said."""

    def __init__(self, node: str, directory: Path) -> None:
        self.node, self.events, self._rest = node, list[Event](), b""
        support = str(Path(__file__).parent)
        self._errors = (directory / f"{node}.err").open("ab+")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), node, MACHINES[node], str(directory / node), str(NBYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])},
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.frames: list[int] = []

    def begun(self) -> None:
        """Wait until it is there, then look at what it holds while nothing happens."""
        said = self.until("open", lambda event: True)
        self.address = said["address"]
        self.frames = [os.open(f"/proc/{self.process.pid}/fd/{fd}", os.O_RDONLY) for fd in said["fds"]]
        self.at_rest = held_by(self.process.pid)
        assert (self.at_rest["frames mapped"], self.at_rest["shared memory"]) == (len(self.frames), 0)

    def order(self, do: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self.process.stdin.flush()

    def listen(self, timeout_s: float = 0.0) -> None:
        """Take in what it has said since."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], timeout_s)[0]:
            *lines, self._rest = (self._rest + (self.process.stdout.read() or b"")).split(b"\n")
            self.events += map(json.loads, lines)
        defects = [event for event in self.events if event["what"] == "defect"]
        assert not defects, f"{self.node}: {defects}"

    def until(self, what: str, fits: Callable[[Event], bool]) -> Event:
        """Return the first event of that kind, or of several in words, that fits."""
        end = time.monotonic() + DEADLINE_S
        while True:
            self.listen(0.02)
            for event in self.events:
                if event["what"] in what.split() and fits(event):
                    return event
            assert time.monotonic() < end, (
                f"{self.node}: no {what} within {DEADLINE_S:g} s: {self.events[-8:]}, {self.errors()}"
            )
            assert self.process.poll() is None, f"{self.node} has ended: {self.errors()}"

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def kill(self) -> float:
        """Return when it was killed; what it said before can still be read."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait(20)
        self.listen()
        return at

    def close(self) -> None:
        """End it, if it still runs, and let go of what is kept of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        while self.frames:
            os.close(self.frames.pop())
        self.process.stdout.close()
        self._errors.close()


def held_by(pid: int) -> dict[str, int]:
    """Return how many descriptors of each kind a process has, its threads, and the frames that it maps."""
    held: Counter[str] = Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            held[os.readlink(f"/proc/{pid}/fd/{fd}").split(":[")[0]] += 1
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            held[f"thread {Path(f'/proc/{pid}/task/{task}/comm').read_text().strip()}"] += 1
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    held["frames mapped"] = len({line.split()[4] for line in maps if "hpresil-frame" in line})
    held["shared memory"] = sum("/dev/shm" in line for line in maps)
    return dict(held)


def vouched_for(fd: int) -> int:
    """Check what the first page of a frame says is there, byte for byte; return its version, -1: nothing."""
    page = os.pread(fd, preface.HEADER_BYTES, 0)
    try:
        header = preface.parse_header(page, os.fstat(fd).st_size, native.crc32c, whole=False)
    except TransferFailed:
        return -1
    right = known(header.version)
    if header.whole:
        same = os.pread(fd, NBYTES, 0) == right
        assert same, f"version {header.version} is sealed, and not right"
        return header.version
    rows = msgspec.msgpack.decode(
        right[preface.HEADER_BYTES : preface.HEADER_BYTES + header.manifest_bytes], type=preface.Manifest
    ).tensors[: header.there]
    end = rows[-1].offset + rows[-1].nbytes
    same = os.pread(fd, NBYTES, 0)[preface.HEADER_BYTES : end] == right[preface.HEADER_BYTES : end]
    assert same, f"{header.there} tensors of version {header.version} are said to be there, and are not"
    return -1


_KNOWN: dict[int, bytes] = {}


def known(version: int) -> bytes:
    if version not in _KNOWN:
        for old in sorted(_KNOWN)[:-3]:
            del _KNOWN[old]
        _KNOWN[version] = known_frame(NBYTES, version)
    return _KNOWN[version]


class Job:
    """Four agents, and their coordinator."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.agents = {node: AgentProcess(node, directory) for node in MACHINES}
        for agent in self.agents.values():
            agent.begun()
        self.generation = 1

    def replace(self, node: str) -> None:
        """Start another agent in the place of a dead one; its socket file is still there."""
        dead, self.agents[node] = self.agents[node], AgentProcess(node, self._directory)
        dead.close()
        self.agents[node].begun()

    def decide(self, version: int, nodes: list[str], newcomers: dict[str, int], store: str = "") -> None:
        """Tell the nodes, in this order, which newcomers copy the version from which worker."""
        for node in nodes:
            self.agents[node].order(
                "decide",
                generation=self.generation,
                target=version,
                sources={NUMBER[newcomer]: source for newcomer, source in newcomers.items()},
                workers=WORKERS,
                addresses={name: agent.address for name, agent in self.agents.items()},
                store=store,
            )

    def outcome(self, node: str) -> Event:
        """Return how the newcomer's frame of this generation came about."""
        return self.agents[node].until("ready failed", lambda said: said["generation"] == self.generation)

    def all_hold(self, version: int) -> None:
        for agent in self.agents.values():
            held = [vouched_for(fd) for fd in agent.frames]
            assert version in held, f"{agent.node} holds {held}, not {version}"

    def counted(self) -> Counter[str]:
        """Return what the engines of all have counted."""
        found: Counter[str] = Counter()
        for agent in self.agents.values():
            agent.order("count")
            found.update(agent.until("counted", lambda said: True)["counters"])
        return found

    def nothing_is_left(self) -> None:
        """Wait until every agent has what it had before the first frame moved, no more and no less."""
        for agent in self.agents.values():
            end = time.monotonic() + DEADLINE_S
            while (now := held_by(agent.process.pid)) != agent.at_rest:
                more = {kind: n for kind, n in now.items() if n != agent.at_rest.get(kind, 0)}
                assert time.monotonic() < end, f"{agent.node} at rest: {agent.at_rest}, now other: {more}"
                time.sleep(0.02)
