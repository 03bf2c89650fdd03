"""hpresil: a spare takes the place of a lost worker and has its state from a living one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SCRIPTS, Contender, Job, Mark, Process

HANG_S = 3.0
"""How long a worker may do nothing until it is called hung: hpresil's default, and the limit that every tuned
contender is given. Those that are not tuned have their own defaults."""
MARKS = {
    **{"WorkerLost": "noticed", "NodeLost": "noticed", "ViewInstalled": "members"},
    **{"GroupBuilt": "group", "Restored": "restored"},
}
"""Events of its log (`hpresil.telemetry.events`) by the names that the other scripts' marks have."""


@dataclass(frozen=True)
class Hpresil(Contender):
    flags: tuple[str, ...] = ()

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        command = [python, "-m", "hpresil.cli.main", "run", "--run-dir", directory / "run"]
        command += ["--slots", str(job.workers), "--hang-timeout-min-s", str(HANG_S)]
        command += ["--spares", str(job.spares)]
        nodes = 2 if "--local-nodes" in self.flags else job.nodes
        if job.nodes > 1:
            command += ["--local-nodes", str(job.nodes)]
        command += ["--nproc-per-node", str(-(-job.workers // nodes)), "--workers", str(job.workers)]
        return [Process("launcher", [*command, *self.flags, SCRIPTS / "train_hpresil.py"])]

    def marks(self, directory: Path) -> list[Mark]:
        lines = (directory / "run" / "events.jsonl").read_bytes().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [
            {"t": event["t"], "pid": event.get("worker", -1), "what": MARKS[event["event"]]}
            for event in events
            if event["event"] in MARKS
        ]


CONTENDERS: list[Contender] = [
    Hpresil("hpresil"),
    Hpresil("hpresil, streamed between 2 nodes", suites=("steady",), flags=("--local-nodes", "2")),
    Hpresil("hpresil, native reduction", suites=("steady",), flags=("--reduction", "native")),
]
