"""A step without faults beside plain DDP, for each way in which gradients can travel.

    .venv/bin/python bench/recovery/healthy.py [--workers 2,4] [--repeats 1] [--steps 20] [--ways WAY,…]

Plain DDP and hpresil take turns on the workload of `run.py`: ``read`` (one node: workers read each other's
memory), ``streamed`` (two local nodes: read within each, sent between them), ``native`` (the backend's
all-reduce). Prints medians over the repeats; the ratios within one run are what can be compared.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))  # works without an installed hpresil

import contenders
import report

REDUCTION = {"ddp": "backward and reduction", "hpresil": "fold, reduction, vote"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="2,4")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ways", default=",".join(contenders.WAYS))
    args = parser.parse_args()
    print(f"commit {report.commit(contenders.ROOT)}, {report.today()}, {report.machine()}\n")
    print("| workers | way | step, ms | to DDP | processor time of rank 0, ms | to DDP | reduction, ms |")
    print("| --- " * 7 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="hpresil-bench-") as scratch:
        for workers in map(int, args.workers.split(",")):
            measure(Path(scratch) / str(workers), workers, args)
    return 0


def measure(directory: Path, workers: int, args: argparse.Namespace) -> None:
    """Run every contender in turn, as often as asked, and print a line for each."""
    runs: dict[str, list[contenders.Figures]] = {way: [] for way in ("ddp", *args.ways.split(","))}
    load = os.getloadavg()[0]
    for turn in range(args.repeats):
        for way, found in runs.items():
            place = directory / f"{way}-{turn}"
            if way == "ddp":
                found.append(contenders.ddp(place, workers=workers, steps=args.steps))
            else:
                found.append(contenders.undisturbed(place, workers=workers, steps=args.steps, way=way))
    medians = {way: report.medians(found) for way, found in runs.items()}
    ddp = medians["ddp"]
    for way, figures in medians.items():
        step, cpu = figures["step_ms"], figures["step_cpu_ms"]
        part = figures["parts_ms"][REDUCTION.get(way, REDUCTION["hpresil"])]
        print(
            f"| {workers} | {way} | {step:.0f} | {step / ddp['step_ms']:.2f} "
            f"| {cpu:.0f} | {cpu / ddp['step_cpu_ms']:.2f} | {part:.0f} |",
            flush=True,
        )
    print(f"(load average before: {load:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
