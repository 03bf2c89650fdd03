"""`python -m bench SUITE [NAME...] [--json FILE] [--quick]`: benches, and the rows that they write.

    recovery    what a fault costs hpresil and its peers; a NAME is a case, say sigkill-50m-2+1
    steady      what protection costs while nothing happens; a NAME is a case, say 50m-2
    snapshot    what a snapshot costs the training thread; a NAME is a case, say 1gib-idle
    micro       small parts of the product beside their floors; a NAME is a file of bench/micro
    model       expected goodput at scales that were not measured; a NAME is a case, say model-10k
    all         all of these

Prints a table of each case as it ends, and writes all rows with what they depend on to FILE. ``--quick``:
one case of 5 M parameters for recovery and steady, 256 MiB and 5 M for snapshot, each contender once and
without warm-up, micro with small sizes: minutes, not hours. Such figures show that the benches run, not what
the machine can do. ``--trace DIR``: a timeline of each run, with all of its processes (`bench/trace.py`).

Of files with rows, without measuring anything (``--help`` says how):

    table       their rows as Markdown tables
    plots       a picture of each case
    timeline    a recovery as a picture, from a timeline of --trace
    quotes      the figures in the documents, written anew or checked
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from bench import rows, trace

ROOT = Path(__file__).parents[1]
SUITES = ("recovery", "steady", "snapshot", "micro")
MODELS = ("model",)
"""Run like a suite, and measure nothing."""
COMMANDS = ("table", "plots", "timeline", "quotes")
"""Each is a module here with ``main(arguments) -> status``."""


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:]))
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=[*SUITES, *MODELS, "all"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the suite (all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="small cases, each once")
    parser.add_argument("--trace", metavar="DIR", type=Path, help="write a timeline of each run there")
    args = parser.parse_args()
    suites = {
        name: import_module(f"bench.{name}.suite")
        for name in ((*SUITES, *MODELS) if args.suite == "all" else (args.suite,))
    }
    known = [(name, part) for name, suite in suites.items() for part in suite.names(args.quick)]
    if unknown := set(args.names) - {part for _, part in known}:
        there = ", ".join(part for _, part in known)
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are: {there}")
    command = " ".join(["python -m bench", args.suite, *args.names, *(["--quick"] if args.quick else [])])
    about = rows.machine() | {"quick": args.quick, "date": today(), "commit": commit(), "command": command}
    print(rows.caption(about), flush=True)
    if args.trace:
        trace.destination = trace.Timelines(args.trace)
    taken: list[rows.Row] = []
    for name, part in known:
        if args.names and part not in args.names:
            continue
        if trace.destination is not None:
            trace.destination.label = f"{name}-{part}"
        fresh = list(suites[name].rows(part, args.quick))
        print(f"\n## {name}: {part}\n\n{rows.table(fresh)}", flush=True)
        taken += fresh
        if args.json:  # after each, so that what a later one spoils is not lost
            rows.write(args.json, taken, about)


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def commit() -> str:
    """Return what is measured, with a mark if files of the product or the bench differ from it."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changed = git("status", "--porcelain", "--", "python", "csrc", "bench")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


if __name__ == "__main__":
    main()
