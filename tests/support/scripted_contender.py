"""A contender of the bench whose processes are scripts of a test: they train nothing and leave marks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender, Job, Mark, Process

TRAIN = """
import json, os, sys, time

OUT, STEPS, SAVE_EVERY = (os.environ["BENCH_" + name] for name in ("OUT", "STEPS", "SAVE_EVERY"))
FAULT = os.environ["BENCH_FAULT"].split(":")
MARKS = open(f"{OUT}/marks.{os.getpid()}.jsonl", "a", buffering=1)

def mark(what, **fields):
    MARKS.write(json.dumps({"t": time.monotonic(), "pid": os.getpid(), "what": what, **fields}) + "\\n")

def step(number, loss="aa", ranks=(0, 1)):
    begun = time.process_time()
    while time.process_time() - begun < 0.004:
        pass
    for rank in ranks:
        mark("step", step=number, rank=rank, world=2, parts={str(rank): loss})

def fault():
    with open(f"{OUT}/fault", "w") as file:
        json.dump({"pids": [], "t": time.monotonic()}, file)

def fault_is_at(number):
    return FAULT[0] and int(FAULT[2]) == number
"""
"""What a script may use: marks for two ranks, and a fault that ends nothing."""
WELL = (
    TRAIN
    + """
for number in range(int(STEPS)):
    if fault_is_at(number):
        fault()
        mark("noticed")
    step(number)
"""
)
"""All steps; the fault, if there is one, costs nothing."""


@dataclass(frozen=True)
class Scripted(Contender):
    """Runs each of its scripts as a process of its own: ``process-0`` and so on; those of ``helpers`` too."""

    scripts: tuple[str, ...] = (WELL,)
    helpers: tuple[str, ...] = ()
    tuned: bool = False

    def processes(self, job: Job, directory: Path, python: Path, ports: Sequence[int]) -> list[Process]:
        both = [*((script, False) for script in self.scripts), *((script, True) for script in self.helpers)]
        return [
            Process(f"process-{number}", [sys.executable, "-c", script], helper=helper)
            for number, (script, helper) in enumerate(both)
        ]

    def marks(self, directory: Path) -> list[Mark]:
        return []


def failing(name: str, says: str = "RuntimeError: out of luck") -> Scripted:
    """Return one whose only process ends with status 3 and these last words."""
    return Scripted(name, scripts=(f"import sys; print({says!r}, file=sys.stderr); sys.exit(3)",))


def flaky(name: str, times: Path, fails: Sequence[int], script: str = WELL) -> Scripted:
    """Return one whose runs with these numbers (from 0) fail; ``times`` is a file that counts them."""
    count = (
        f"import os, sys; n = os.path.getsize({str(times)!r}) if os.path.exists({str(times)!r}) else 0\n"
        f"open({str(times)!r}, 'a').write('.')\n"
        f"if n in {tuple(fails)!r}: sys.exit('ValueError: a bad day')\n"
    )
    return Scripted(name, scripts=(count + script,))
