"""Runs the workload once under one contender and reads off what it took.

Each run gets a directory of its own and leaves there what it wrote: the marks of the training processes
and, for hpresil, the run directory with its events. A run that did not do what it was asked to is an error:
the fault must have fired, every step must have been committed once, the job must have ended well.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import workload

from hpresil.telemetry import events
from hpresil.telemetry.recovery import Recovery, recoveries

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LONGEST_RUN_S = 600.0
WARM_UP_STEPS = 6
HPRESIL = (sys.executable, "-m", "hpresil.cli.main", "run")
Figures = dict[str, Any]


class Failed(RuntimeError):
    """A run did not do what it was asked to."""


def ddp(directory: Path, *, workers: int, steps: int) -> Figures:
    """Run plain DistributedDataParallel without a fault."""
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(workers), str(HERE / "train_ddp.py")]
    run([*command, "--out", str(directory), "--steps", str(steps)], directory, {})
    return _healthy(directory, range(WARM_UP_STEPS, steps))


WAYS = {
    "read": ("--nproc-per-node", "{workers}"),
    "streamed": ("--local-nodes", "2", "--nproc-per-node", "{half}", "--workers", "{workers}"),
    "native": ("--nproc-per-node", "{workers}", "--reduction", "native"),
}
"""How gradients travel: flags of `hpresil run`. With two local nodes memory is read within each of them."""


def undisturbed(directory: Path, *, workers: int, steps: int, way: str) -> Figures:
    """Run hpresil without a fault, gradients travelling in one of the `WAYS`."""
    directory.mkdir(parents=True)
    flags = [flag.format(workers=workers, half=-(-workers // 2)) for flag in WAYS[way]]
    command = [*HPRESIL, "--run-dir", str(directory / "run"), *flags]
    command += ["--slots", str(workers), str(HERE / "train_hpresil.py")]
    run([*command, "--out", str(directory), "--steps", str(steps)], directory, {})
    return _healthy(directory, range(WARM_UP_STEPS, steps))


def hpresil(
    directory: Path, *, workers: int, steps: int, kill_step: int, kill_at: str, resident_gib: float
) -> Figures:
    """Run hpresil with a spare and one SIGKILL."""
    directory.mkdir(parents=True)
    command = [*HPRESIL, "--run-dir", str(directory / "run")]
    command += ["--nproc-per-node", str(workers), "--spares", "1", "--slots", str(workers)]
    command += [str(HERE / "train_hpresil.py"), "--out", str(directory), "--steps", str(steps)]
    command += ["--resident", str(resident_gib)]
    environment = {}
    if kill_at == "forward":
        command += ["--kill-step", str(kill_step)]
    else:
        fault = {"id": "killed", "point": kill_at, "action": "kill", "rank": workload.KILLED_RANK}
        spec = {"log": str(directory), "faults": [{**fault, "step": kill_step}]}
        (directory / "faults.json").write_text(json.dumps(spec))
        environment["HPRESIL_FAILPOINTS"] = str(directory / "faults.json")
    run(command, directory, environment)
    figures = _healthy(directory, range(WARM_UP_STEPS, kill_step))
    # A slot dies with its worker: from the kill on it is computed once more, exchanged and applied, with
    # nothing before and nothing beside it. The other slots are further on by then.
    floor_ms = round(sum(figures["parts_ms"].values()), 2)
    found = _recovery(directory, steps, kill_step)
    over_ms = round(found["first_full_step_ms"] - figures["step_ms"], 2)
    return {**figures, "floor_ms": floor_ms, **found, "over_step_ms": over_ms}


def run(command: Sequence[str], directory: Path, environment: dict[str, str]) -> None:
    """Run a command to its end. Raises Failed if it does not end well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HPRESIL_")}
    paths = [str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **environment}
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(LONGEST_RUN_S)
        finally:
            if process.poll() is None:
                _end(process)
    if status != 0:
        shown = "\n".join((directory / "output.txt").read_text(errors="replace").splitlines()[-30:])
        raise Failed(f"{' '.join(command)} ended with status {status}:\n{shown}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20.0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20.0)


def _healthy(directory: Path, steps: range) -> Figures:
    """Return medians over undisturbed steps of rank 0: wall time, processor time, and the parts."""
    marks = workload.read_marks(directory)
    lines = [line for line in marks if line["what"] == "step" and line["rank"] == 0]
    pairs = [(a, b) for a, b in pairwise(lines) if b["step"] in steps]
    if len(pairs) != len(steps):
        raise Failed(f"rank 0 made {len(pairs)} of the {len(steps)} steps to be measured ({directory})")
    names = {name for _, line in pairs for name in line["parts"]}
    parts = {name: statistics.median(line["parts"].get(name, 0.0) for _, line in pairs) for name in names}
    return {
        "step_ms": statistics.median((b["t"] - a["t"]) * 1e3 for a, b in pairs),
        "step_cpu_ms": statistics.median((b["cpu_s"] - a["cpu_s"]) * 1e3 for a, b in pairs),
        "parts_ms": {name: round(value, 2) for name, value in sorted(parts.items())},
    }


def _recovery(directory: Path, steps: int, kill_step: int) -> Figures:
    seen = events.read(directory / "run" / "events.jsonl")
    if not (directory / "killed").exists():
        raise Failed(f"the fault at step {kill_step} did not fire ({directory})")
    fault = json.loads((directory / "killed").read_text())
    worker = next(e["worker"] for e in seen if e["event"] == "WorkerStarted" and e["pid"] == fault["pid"])
    committed = [e["step"] for e in seen if e["event"] == "StepCommitted"]
    if committed != list(range(steps)):
        raise Failed(f"steps 0 to {steps - 1} were to be committed once each, got {committed} ({directory})")
    found = [r for r in recoveries(seen, {worker: fault["t"]}) if worker in r.workers]
    if len(found) != 1 or found[0].total_ms is None:
        raise Failed(f"one recovery from the loss of worker {worker} was expected, got {found} ({directory})")
    return _phases(found[0], seen, fault["t"])


def _phases(recovery: Recovery, seen: list[events.Event], fault: float) -> Figures:
    """Return when each phase was over, in milliseconds from the kill."""
    mine = [e for e in seen if e["t"] >= fault]
    sealed = next((e["t"] for e in mine if e["event"] == "FrameSealed"), fault)
    noticed = recovery.detect_ms
    regrouped = noticed + (recovery.regroup_ms or 0.0)
    return {
        "noticed_ms": noticed,
        "regrouped_ms": regrouped,
        "sealed_ms": (sealed - fault) * 1e3,
        "restored_ms": regrouped + (recovery.restore_ms or 0.0),
        "first_full_step_ms": recovery.total_ms,
        "steps_redone": recovery.steps_redone,
    }
