"""Loss of one of two nodes: from the kill of its agent to the next step that all members have committed.

    .venv/bin/python bench/recovery/lost_node.py [--lose other] [--repeats 5] [--results DIR]

Both nodes are on this machine (``--local-nodes 2``). The agent of one, the coordinator's or the other one, is
killed when one of its workers has finished a slot of the kill step; its workers go with it, and those of the
other node finish the step.
The result is one JSON file.
"""

import argparse
import json
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))  # works without an installed hpresil

import contenders
import report

from hpresil.telemetry import events

NODES = 2


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lose", choices=("coordinator", "other"), default="other")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nproc-per-node", type=int, default=2)
    parser.add_argument("--kill-step", type=int, default=15)
    parser.add_argument("--results", type=Path, default=contenders.ROOT / "bench" / "results")
    args = parser.parse_args()
    runs = []
    for number in range(args.repeats):
        with tempfile.TemporaryDirectory(prefix="hpresil-bench-") as scratch:
            runs.append(measure(Path(scratch), args.lose, args.nproc_per_node, args.kill_step))
        print(f"{number + 1}: {runs[-1]}", flush=True)
    setup = {name: getattr(args, name) for name in ("lose", "repeats", "nproc_per_node", "kill_step")}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in setup.items())
    result = {
        "date": report.today(),
        "commit": report.commit(contenders.ROOT),
        "machine": report.machine(),
        "command": f"bench/recovery/lost_node.py {flags}",
        "setup": setup,
        "medians": report.medians(runs),
        "runs": runs,
    }
    path = args.results / f"lost-{args.lose}-node-{result['date'][:10]}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['medians']}\nwritten to {path}")
    return 0


def measure(directory: Path, lose: str, nproc: int, kill_step: int) -> dict[str, Any]:
    """Run once; return milliseconds."""
    workers, steps = NODES * nproc, kill_step + 3
    command = [*contenders.HPRESIL, "--run-dir", str(directory / "run"), "--local-nodes", str(NODES)]
    command += ["--nproc-per-node", str(nproc), "--slots", str(workers)]
    command += [str(contenders.HERE / "train_hpresil.py"), "--out", str(directory), "--steps", str(steps)]
    fault: dict[str, Any] = {"id": "killed", "point": "slot.end", "action": "lose_node", "step": kill_step}
    fault["node"] = 0 if lose == "coordinator" else 1
    (directory / "faults.json").write_text(json.dumps({"log": str(directory), "faults": [fault]}))
    contenders.run(command, directory, {"HPRESIL_FAILPOINTS": str(directory / "faults.json")})
    if not (directory / "killed").exists():
        raise contenders.Failed(f"the fault at step {kill_step} did not fire ({directory})")
    killed = json.loads((directory / "killed").read_text())["t"]
    seen = events.read(directory / "run" / "events.jsonl")
    if [e["step"] for e in seen if e["event"] == "StepCommitted"] != list(range(steps)):
        raise contenders.Failed(f"steps 0 to {steps - 1} were to be committed once each ({directory})")
    return phases(seen, killed)


def phases(seen: list[events.Event], killed: float) -> dict[str, Any]:
    """Return when each phase was over, in milliseconds from the kill, and the steps on either side."""

    def after(name: str, **wanted: object) -> events.Event:
        for event in seen:
            if event["event"] == name and event["t"] >= killed and wanted.items() <= event.items():
                return event
        raise contenders.Failed(f"no {name} after the kill")

    lost, view = after("NodeLost"), after("ViewInstalled")
    generation, members = view["generation"], len(view["members"])
    done = [e for e in seen if e["event"] == "StepCompleted"]
    before = [e["t"] for e in done if e["t"] < killed]
    built = [e["t"] for e in seen if e["event"] == "GroupBuilt" and e.get("generation") == generation]
    healthy = statistics.median(b - a for a, b in pairwise(before[contenders.WARM_UP_STEPS :]))
    return {
        "healthy_step_ms": healthy * 1e3,
        "noticed_ms": (lost["t"] - killed) * 1e3,
        "regrouped_ms": (max(built) - killed) * 1e3,
        "next_step_ms": (after("StepCompleted", generation=generation)["t"] - killed) * 1e3,
        "members_left": members,
    }


if __name__ == "__main__":
    sys.exit(main())
