"""Agents are killed at random while frames move: what is whole is right, what breaks goes on, nothing leaks.

Four agents on two machines bring one version after the other from one of them to all; then one is killed,
at any time from the first order on. `HPRESIL_TRANSFER_KILLS=200` sets how many kills; a dozen by default.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from frame_bytes import known_frame
from hpresil import native
from hpresil.base.errors import TransferFailed
from hpresil.snapshot import preface

KILLS = int(os.environ.get("HPRESIL_TRANSFER_KILLS", "12"))
SEED = int(os.environ.get("HPRESIL_TRANSFER_KILLS_SEED", "20261123"))
PROGRAM = Path(__file__).with_name("exchange_agent.py")
MACHINES = {"n0": "one", "n1": "one", "n2": "two", "n3": "two"}
WORKERS = dict(enumerate(MACHINES))
NUMBER = {node: worker for worker, node in WORKERS.items()}
AGENT = -1
NBYTES = 24 << 20
DEADLINE_S = 30.0

Event = dict[str, Any]


class AgentProcess:
    """One agent; ``events`` are what it has said."""

    def __init__(self, node: str, directory: Path) -> None:
        self.node, self.events, self._rest = node, list[Event](), b""
        support = str(Path(__file__).parents[2] / "support")
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


class Tally:
    """When the kills came, and what came of them."""

    def __init__(self) -> None:
        self.when: Counter[str] = Counter()
        self.then: Counter[str] = Counter()
        self.longest_s = 0.0

    def count(self, job: Job, victim: str, nodes: list[str], version: int, at: float) -> None:
        """Note a kill; ``nodes``: the source, then the takers."""
        when = phase(job, victim, nodes[0], version, at)
        role = "the source" if victim == nodes[0] else f"taker {nodes.index(victim)}"
        self.when[when] += 1
        self.when[f"{when}, {role}"] += 1
        outcomes = [job.outcome(node)["at"] for node in nodes[1:] if node != victim]
        self.longest_s = max(self.longest_s, *(outcome - at for outcome in outcomes))

    def __str__(self) -> str:
        when, then = (
            ", ".join(f"{n} {what}" for what, n in sorted(c.items())) for c in (self.when, self.then)
        )
        return f"kills: {when}; then: {then}; longest wait {self.longest_s:.2f} s"


def phase(job: Job, victim: str, source: str, version: int, at: float) -> str:
    """Return where the transfers of the victim were when it was killed: before, in the middle, after."""
    takers = [node for node in MACHINES if node != source] if victim == source else [victim]

    def times(node: str, what: str) -> list[float]:
        events = job.agents[node].events
        return [said["at"] for said in events if said["what"] == what and said["version"] == version]

    begun = [node for node in takers if any(time <= at for time in times(node, "begun"))]
    came = [node for node in takers if any(time <= at for time in times(node, "came"))]
    return "before" if not begun else "after" if len(came) == len(takers) else "in the middle"


def moves(job: Job, version: int, chance: random.Random, *, filled: bool) -> tuple[list[str], float]:
    """Begin to move a version from a random node to all others; return the nodes and when it began.

    The source is the first; the others ask in the order in which they are returned: once it has ``filled`` a
    frame, or before.
    """
    source, *takers = chance.sample(list(MACHINES), len(MACHINES))
    job.generation += 1
    newcomers = dict.fromkeys(takers, NUMBER[source])
    if filled:
        job.decide(version, [source], newcomers)
        job.agents[source].until("sealed", lambda said: said["version"] == version)
        begun = time.monotonic()
        job.decide(version, takers, newcomers)
    else:
        begun = time.monotonic()
        job.decide(version, [*takers, source], newcomers)
    return [source, *takers], begun


def came_to_all(job: Job, version: int, takers: list[str]) -> float:
    """Return when the last one had it."""
    last = 0.0
    for node in takers:
        said = job.outcome(node)
        assert said["what"] == "ready", f"{node}: {said}"
        assert said["version"] == version
        assert vouched_for(job.agents[node].frames[said["frame"]]) == version
        job.agents[node].order("restored", worker=NUMBER[node])
        last = max(last, said["at"])
    return last


def goes_on(job: Job, version: int, source: str, without: list[str]) -> str:
    """Have those who lack a version take it from whoever has it, else from the source again."""
    holders = [node for node in MACHINES if node not in without]
    job.generation += 1
    store = holders[0] if holders else ""
    newcomers = [node for node in without if store or node != source]
    sources = dict.fromkeys(newcomers, AGENT if store else NUMBER[source])
    job.decide(version, list(MACHINES), sources, store)
    came_to_all(job, version, newcomers)
    if not holders:
        job.agents[source].until("sealed", lambda said: said["version"] == version)
    return "resumed from another holder" if holders else "resumed from the source started again"


def kill_one(job: Job, version: int, usual_s: dict[bool, float], chance: random.Random, tally: Tally) -> None:
    """Kill an agent at any time from the first order on, or from the first byte on."""
    filled, from_the_first_byte = chance.random() < 0.7, chance.random() < 0.5
    (source, *takers), begun = moves(job, version, chance, filled=filled)
    victim = chance.choice([source, *takers])
    delay_s = chance.uniform(0.0, 1.1 * usual_s[filled])
    if from_the_first_byte:
        first = job.agents[victim if victim != source else takers[0]]
        first.until("begun", lambda said: said["version"] == version)
        begun, delay_s = time.monotonic(), delay_s / 2
    time.sleep(max(0.0, begun + delay_s - time.monotonic()))
    killed_at = job.agents[victim].kill()
    for fd in job.agents[victim].frames:
        vouched_for(fd)
    lacking = [node for node in takers if node != victim and not has_come(job, node, source, version, victim)]
    tally.count(job, victim, [source, *takers], version, killed_at)
    job.replace(victim)
    tally.then[goes_on(job, version, source, [victim, *lacking])] += 1
    tally.then["failed and said so"] += len(lacking)
    job.all_hold(version)


def has_come(job: Job, node: str, source: str, version: int, victim: str) -> bool:
    """Return whether a taker that lives got its frame; if not, check that it knows, and says why."""
    said = job.outcome(node)
    if said["what"] == "ready":
        came_to_all(job, version, [node])
        return True
    assert victim == source, f"{node} failed though the source lives: {said}"
    who, _, why = said["error"].partition(f" {source}: ")
    assert (who, bool(why)) == (f"fetching version {version} from node", True), said
    for fd in job.agents[node].frames:
        assert vouched_for(fd) != version, f"{node} failed, and its frame is sealed"
    return False


def undisturbed(job: Job, version: int, chance: random.Random, *, filled: bool) -> float:
    """Return how long a version takes to be everywhere when nobody is killed."""
    (_, *takers), begun = moves(job, version, chance, filled=filled)
    took_s = came_to_all(job, version, takers) - begun
    job.nothing_is_left()
    return took_s


@contextlib.contextmanager
def jobs(directory: Path) -> Iterator[Job]:
    job = Job(directory)
    try:
        yield job
        for agent in job.agents.values():
            agent.close()
            assert agent.process.returncode == 0, agent.errors()
    finally:
        for agent in job.agents.values():
            agent.close()


def children() -> list[str]:
    """Return the processes that this one has started and not waited for."""
    return " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()


@pytest.mark.timeout(120 + 10 * KILLS)
def test_agents_that_are_killed_leave_right_frames_and_nothing_else(tmp_path: Path) -> None:
    chance, tally = random.Random(SEED), Tally()
    print(f"HPRESIL_TRANSFER_KILLS_SEED={SEED}")
    before = children(), len(os.listdir("/proc/self/fd"))
    with jobs(tmp_path) as job:
        versions = itertools.count(1)
        for version in itertools.islice(versions, 2):
            undisturbed(job, version, chance, filled=True)  # all the memory is there, all the code is known
        counted = job.counted()
        assert counted["sent_bytes"], "nothing went over the network"
        assert counted["passed_descriptors"], "nothing went through memory"
        for kill in range(3 * KILLS):
            if kill >= KILLS and tally.when["in the middle"] >= KILLS // 3:
                break  # a machine that does much else may need some more to hit as many
            if kill % 20 == 0:
                usual_s = {f: undisturbed(job, next(versions), chance, filled=f) for f in (True, False)}
            kill_one(job, next(versions), usual_s, chance, tally)
            job.nothing_is_left()
    print(tally)
    assert tally.when["in the middle"] >= KILLS // 3, f"too few kills hit a transfer: {tally}"
    assert (children(), len(os.listdir("/proc/self/fd"))) == before
