"""Recovery latency and the price of being protected, on the workload that the peers were measured with.

    .venv/bin/python bench/recovery/run.py [--repeats 3] [--workers 2] [--kill-at WHERE] [--resident GIB]

Plain DDP without a fault and hpresil with one SIGKILL take turns, so that both see the same machine.
Results go to ``bench/results/``: everything as JSON, the medians as a Markdown table. WHERE rank 1 dies:

* ``forward``: after the forward pass of the step, where the peers' scripts die; the survivor is computing,
* ``slot.end``: when its slot's gradient is complete, before it is exchanged,
* ``reduce.begin``: at the beginning of the exchange.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))  # works without an installed hpresil

import contenders
import report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--kill-step", type=int, default=25)
    parser.add_argument("--kill-at", choices=("forward", "slot.end", "reduce.begin"), default="forward")
    parser.add_argument("--resident", type=float, default=0.0, metavar="GIB", help="in the worker that dies")
    parser.add_argument("--results", type=Path, default=contenders.ROOT / "bench" / "results")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the runs wrote there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpresil-bench-") as scratch:
        runs = [measure(args, (args.keep or Path(scratch)) / str(n)) for n in range(args.repeats)]
    names = ("workers", "repeats", "steps", "kill_step", "kill_at", "resident")
    setup = {name: getattr(args, name) for name in names}
    result = {
        "date": report.today(),
        "commit": report.commit(contenders.ROOT),
        "machine": report.machine(),
        "command": "bench/recovery/run.py "
        + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in setup.items()),
        "setup": setup,
        "medians": {who: report.medians([run[who] for run in runs]) for who in ("ddp", "hpresil")},
        "runs": runs,
    }
    ballast = f"-{args.resident:g}gib" if args.resident else ""
    size = f"-{args.workers}-workers" if args.workers != 2 else ""
    name = f"recovery-{result['date'][:10]}-{args.kill_at.replace('.', '-')}{size}{ballast}"
    page = report.write(result, args.results, name)
    print(page.read_text())
    print(f"written to {page}")
    return 0


def measure(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Run both contenders once."""
    load = [round(os.getloadavg()[0], 1)]
    theirs = contenders.ddp(directory / "ddp", workers=args.workers, steps=args.kill_step)
    load.append(round(os.getloadavg()[0], 1))
    ours = contenders.hpresil(
        directory / "hpresil",
        workers=args.workers,
        steps=args.steps,
        kill_step=args.kill_step,
        kill_at=args.kill_at,
        resident_gib=args.resident,
    )
    print(
        f"DDP {theirs['step_ms']:.0f} ms, hpresil {ours['step_ms']:.0f} ms a step, "
        f"recovery {ours['first_full_step_ms']:.0f} ms, {ours['over_step_ms']:.0f} above a step, load {load}",
        flush=True,
    )
    return {"load": load, "ddp": theirs, "hpresil": ours}


if __name__ == "__main__":
    sys.exit(main())
