"""Runs `hpresil run` for tests: collects what it left and proves that it left nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "integration" / "scripts"
COMMAND = [sys.executable, "-m", "hpresil.cli.main"]
ENDING_S = 10.0


@dataclass
class Job:
    """A job that ran to its end."""

    status: int
    output: str
    directory: Path
    fired: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def record(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "record.jsonl").read_text().splitlines()]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "events.jsonl").read_text().splitlines()]

    def happened(self, event: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event]


def arguments(
    directory: Path,
    script: str | Path,
    *args: object,
    nproc: int = 1,
    spares: int = 0,
    flags: tuple[str, ...] = (),
) -> list[str]:
    return [
        *COMMAND, "run", "--nproc-per-node", str(nproc), "--spares", str(spares), "--run-dir", str(directory),
        "--record", str(directory / "record.jsonl"), "--record-state-every", "1", *flags,
        str(SCRIPTS / script), *map(str, args),
    ]  # fmt: skip


def environment(directory: Path, faults: list[dict[str, Any]] | None, **more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HPRESIL_")}
    env.update({"HPRESIL_HANG_TIMEOUT_MIN_S": "1.5", "COLUMNS": "120", **more})
    if faults:
        log = directory / "fired"
        log.mkdir(parents=True, exist_ok=True)
        spec = directory / "faults.json"
        spec.write_text(json.dumps({"log": str(log), "faults": faults}))
        env["HPRESIL_FAILPOINTS"] = str(spec)
    return env


def run(
    directory: Path,
    script: str | Path,
    *args: object,
    nproc: int = 1,
    spares: int = 0,
    flags: tuple[str, ...] = (),
    faults: list[dict[str, Any]] | None = None,
    timeout_s: float = 90.0,
    inside: tuple[str, ...] = (),
    **env: str,
) -> Job:
    """Run a job to its end; raises AssertionError with its output if that takes too long.

    ``inside``: a command that runs the job, as env does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [*inside, *arguments(directory, script, *args, nproc=nproc, spares=spares, flags=flags)]
    process = subprocess.Popen(
        command,
        env=environment(directory, faults, TEST_SPARES=str(spares), **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(
            f"{' '.join(command)} did not end within {timeout_s} s:\n{output}\n{logs(directory)}"
        ) from None
    assert_nothing_left(directory)
    fired = {p.name: json.loads(p.read_text() or "{}") for p in (directory / "fired").glob("*")}
    return Job(process.returncode, output, directory, fired)


def logs(directory: Path) -> str:
    """Return the end of each worker's log, for a failure's message."""
    parts = []
    for log in sorted((directory / "logs").glob("*")):
        parts.append(f"--- {log.name}\n{log.read_text()[-3000:]}")
    events = directory / "events.jsonl"
    if events.exists():
        parts.append("--- events\n" + "\n".join(events.read_text().splitlines()[-30:]))
    return "\n".join(parts)


def processes_of(directory: Path) -> dict[int, str]:
    """Return the processes whose environment or command names the run directory."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(directory).encode() in text and state != "Z":
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    return found


def assert_nothing_left(directory: Path) -> None:
    end = time.monotonic() + ENDING_S
    while (left := processes_of(directory)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"processes left behind: {left}"
    agent = directory / "agent.json"
    socket = json.loads(agent.read_text()).get("socket", "") if agent.exists() else ""
    while (there := bool(socket) and Path(socket).parent.exists()) and time.monotonic() < end:
        time.sleep(0.05)  # who cleans up after a killed agent knows nothing of the run directory
    assert not there, f"{socket} was left behind"
