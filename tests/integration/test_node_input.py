"""What is given to a job of several nodes can be wrong: it is told in words, or does not matter."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import job
import records
from hpresil.telemetry import story
from launched import Launched
from records import compared

SCRIPT = "train_small.py"
STEPS = 30
WRONG_WALL_CLOCK = Path(__file__).parent / "scripts" / "wall_clock"
FAR_S = 100_000
OTHER_CLOCK = (
    "unshare",
    "--time",
    "--monotonic",
    str(FAR_S),
    "--boottime",
    str(FAR_S),
    "--fork",
    "--kill-child",
)
GARBAGE = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 65536,
    b"\x16\x03\x01\x02\x00\x01",
    b"\x00\x00\x00\x05\x80abcd",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> records.Compared:
    return records.undisturbed(tmp_path_factory.mktemp("alone"), SCRIPT, STEPS)


class Nodes:
    """Agents that are started by hand, each with a directory of its own and a common secret."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secret = self.made_secret("secret")
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]

    def made_secret(self, name: str, mode: int = 0o600) -> Path:
        path = self.directory / name
        path.write_bytes(secrets.token_bytes(32))
        path.chmod(mode)
        return path

    def agent(
        self, rank: int, *flags: str, name: str = "", secret: Path | None = None, **more: Any
    ) -> Launched:
        where = self.directory / f"agent-{rank}-{name or 'node'}-{secrets.token_hex(2)}"
        where.mkdir()
        place = ("--nnodes", "2", "--coordinator", f"127.0.0.1:{self.port}", "--node-rank", str(rank))
        place += ("--node-name", name or f"node{rank}", "--record-state-every", "1")
        record = ("--record", str(self.directory / "record.jsonl")) if not rank else ()
        arguments = ("--steps", str(STEPS), "--sleep", "0.1")
        return Launched(
            where, SCRIPT, *arguments, flags=(*place, *record, *flags),
            HPRESIL_SECRET_FILE=str(secret or self.secret), **more,
        )  # fmt: skip


def status_of(launched: Launched) -> dict[str, Any]:
    command = [*job.COMMAND, "status", "--json", "--run-dir", str(launched.run_dir)]
    asked = subprocess.run(command, env=launched.env, capture_output=True, text=True, timeout=20, check=True)
    found: dict[str, Any] = json.loads(asked.stdout)
    return found


def test_who_does_not_belong_is_told_why_and_the_job_waits_for_who_does(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    nodes = Nodes(tmp_path)
    with nodes.agent(0) as first:
        first.until(lambda: (first.run_dir / "agent.json").exists())
        with nodes.agent(1, secret=nodes.made_secret("another")) as stranger:
            assert stranger.ended(20) == 2
        assert "does not belong to this job" in stranger.stderr
        assert "use the first node's secret everywhere (HPRESIL_SECRET_FILE)" in stranger.stderr
        with nodes.agent(1, name="node0") as twin:
            assert twin.ended(20) == 1
        assert "node 'node0' is connected already" in twin.stderr
        assert "give each agent a --node-name of its own" in re.sub(r"[\s│]+", " ", twin.stderr)
        assert status_of(first)["refused"].items() >= {"second agent": 1, "stranger": 1}.items()
        with nodes.agent(1) as second:
            assert first.ended(40) == 0, first.story()
            assert second.ended(20) == 0, second.story()
    assert compared(tmp_path / "record.jsonl") == undisturbed


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("missing", "cannot be read: No such file"),
        ("open", "has mode 644: others can read it; chmod 600 it"),
        ("empty", "has 0 bytes; it must have 16 to 4096"),
        ("directory", "is not a file"),
    ],
)
def test_a_secret_that_is_none_is_told_once(secret: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / secret
    if secret == "directory":
        path.mkdir()
    elif secret != "missing":
        path.write_bytes(b"" if secret == "empty" else bytes(32))
        path.chmod(0o644 if secret == "open" else 0o600)
    flags = ("--local-nodes", "2") if secret != "missing" else ("--nnodes", "2", "--node-rank", "1")
    flags += ("--coordinator", "127.0.0.1:9") if secret == "missing" else ()
    with Launched(tmp_path, SCRIPT, flags=flags, HPRESIL_SECRET_FILE=str(path)) as launched:
        assert launched.ended(20) == 2
    assert launched.stderr.count("hpresil run:") == 1, launched.stderr
    assert why in launched.stderr


def test_a_port_in_use_ends_all_local_nodes_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ("--local-nodes", "2", "--metrics-port", port)
        with Launched(tmp_path, SCRIPT, flags=flags) as launched:
            assert launched.ended(12) == 2
        assert f"--metrics-port {port}: cannot listen on 127.0.0.1:{port}" in launched.stderr
        nodes = Nodes(tmp_path)
        nodes.port = int(port)
        with nodes.agent(0) as first:
            assert first.ended(12) == 2
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in first.stderr
        assert "choose an address and a free port of this machine" in first.stderr


# ---------------------------------------------------------------------------------------- garbage


def listening(pid: int) -> set[str]:
    """Return the ports and the names of the Unix sockets that a process listens on."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[3] == "0A" and cells[9] in inodes:
                found.add(str(int(cells[1].rpartition(":")[2], 16)))
    for row in Path("/proc/net/unix").read_text().splitlines()[1:]:
        cells = row.split()
        if cells[6] in inodes and int(cells[3], 16) & 0x10000:
            found.add(cells[7])
    return found


def throw(place: str, data: bytes) -> None:
    unix = "/" in place
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect(place if unix else ("127.0.0.1", int(place)))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        except OSError:
            pass


def test_garbage_at_every_listening_socket_of_a_job_does_not_show(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    nodes = Nodes(tmp_path)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        metrics = str(sock.getsockname()[1])
    with nodes.agent(0, "--metrics-port", metrics) as first, nodes.agent(1) as second:
        first.until_step(3)
        here, there = (
            first.facts(),
            json.loads((second.run_dir / "nodes" / "node1" / "agent.json").read_text()),
        )
        places = {0: listening(here["pid"]), 1: listening(there["pid"])}
        named = {
            f"{here['sockets']}/{name}" for name in ("agent", "control", "coordinator", "frames", "status")
        }
        named |= {str(nodes.port), metrics}
        assert named < places[0]
        assert len(places[0]) == len(named) + 2, f"not only door and engine for others: {places[0] - named}"
        assert {f"{there['sockets']}/{name}" for name in ("agent", "control", "frames", "status")} < places[1]
        assert len(places[1]) == 6, f"not only door and engine for other agents: {places[1]}"
        for place in places[0] | places[1]:
            for data in GARBAGE:
                throw(place, data)
        time.sleep(1.5)  # the engine's are counted once a second
        refused = status_of(first)["refused"]
        of_the_engine = sum(count for kind, count in refused.items() if kind.startswith("transfer: "))
        assert of_the_engine >= len(GARBAGE), refused
        assert refused["stranger"] >= 2 * len(GARBAGE) - 2, refused  # coordinator's port and door
        assert refused["invalid frame"] >= 2, refused
        assert refused["no worker"] >= 2, refused
        assert first.ended(40) == 0, first.story()
        assert second.ended(20) == 0, second.story()
    assert compared(tmp_path / "record.jsonl") == undisturbed


# ---------------------------------------------------------------------------------------- clocks


def clocks_or_skip() -> None:
    try:
        tried = subprocess.run(
            [*OTHER_CLOCK, "true"], capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if tried.returncode:
        pytest.skip(f"another monotonic clock needs root and a kernel that can: {tried.stderr.strip()}")


def test_clocks_that_differ_by_hours_do_not_show_and_all_that_is_told_fits_together(
    undisturbed: list[Any], tmp_path: Path
) -> None:
    clocks_or_skip()
    nodes = Nodes(tmp_path)
    wrong = {
        "PYTHONPATH": os.pathsep.join([str(WRONG_WALL_CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TEST_WALL_CLOCK_S": "-7200",
    }
    with nodes.agent(0) as first:
        common = ("--run-dir", str(first.run_dir))
        with nodes.agent(1, *common, inside=OTHER_CLOCK, **wrong) as second:
            first.until_step(8)
            lost = next(e for e in first.events("WorkerStarted") if e.get("node") == "node1")
            os.kill(lost["pid"], signal.SIGKILL)
            assert first.ended(60) == 0, first.story()
            assert second.ended(20) == 0, second.story()
    assert compared(tmp_path / "record.jsonl") == undisturbed

    told = story.read(first.run_dir)
    recovery = next(r for r in told.recoveries if lost["worker"] in r.workers)
    assert recovery.detect_ms < 5000
    assert recovery.total_ms is not None
    assert sum(told.goodput().values()) == pytest.approx(told.end - told.begin)
    afar = [process for process in told.processes if process.node == "node1"]
    assert {process.worker for process in afar} >= {-1, lost["worker"]}
    for process in told.processes:
        times = [t for activity in process.activities for t in (activity.begin, activity.end)]
        assert told.begin - 5 < min(times) <= max(times) < told.end + 5, process.name
    begun = {
        process.node: {a.step: a.begin for a in process.activities if a.name == "step"}
        for process in told.processes
        if process.worker in (0, lost["worker"])
    }
    apart = [abs(begun["node0"][step] - begun["node1"][step]) for step in range(2, 7)]
    assert sorted(apart)[2] < 0.1, f"members begin a step together, and were seen {apart} s apart"
    for verb in ("report", "trace"):
        command = [*job.COMMAND, verb, str(first.run_dir)]
        subprocess.run(command, env=first.env, capture_output=True, timeout=60, check=True)
