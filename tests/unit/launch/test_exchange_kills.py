"""Agents are killed at random while frames move: what is whole is right, what breaks goes on, nothing leaks.

Four agents on two machines bring one version after the other from one of them to all; then one is killed,
at any time from the first order on. `HPRESIL_TRANSFER_KILLS=200` sets how many kills; a dozen by default.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange_job import MACHINES, NUMBER, Job, vouched_for

KILLS = int(os.environ.get("HPRESIL_TRANSFER_KILLS", "12"))
SEED = int(os.environ.get("HPRESIL_TRANSFER_KILLS_SEED", "20261123"))
AGENT = -1


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
    found: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended since
            found += path.read_text().split()
    return found


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
