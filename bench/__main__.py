"""`python -m bench SUITE [NAME...] [--json FILE] [--quick]`: benches, and the rows that they write.

    recovery    what a fault costs hpresil and its peers; a NAME is a case, say sigkill-50m-2+1
    steady      what protection costs while nothing happens; a NAME is a case, say 50m-2
    snapshot    what a snapshot costs the training thread; a NAME is a case, say 1gib-idle
    micro       small parts of the product beside their floors; a NAME is a file of bench/micro
    model       expected goodput at scales that were not measured; a NAME is a case, say model-10k
    all         all of these

Prints a table of each part as it ends, and writes all rows with what they depend on to FILE. ``--quick``:
one case of 5 M parameters for recovery and steady, 256 MiB and 5 M for snapshot, each contender once and
without warm-up, micro with small sizes: minutes, not hours. Such figures show that the benches run, not what
the machine can do. What cannot be measured is a row that says why. If that is a fault of the bench and not of
who was to be measured, the others go on, and the status is 1.
``--trace DIR``: a timeline of each run, with all of its processes (`bench/trace.py`).

Of files with rows, without measuring anything (``--help`` says how):

    table       their rows as Markdown tables
    plots       a picture of each case
    timeline    a recovery as a picture, from a timeline of --trace
    quotes      the figures in the documents, written anew or checked
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import rows, trace
from bench.contenders import environment
from bench.machine import load, machine

ROOT = Path(__file__).parents[1]
SUITES = ("recovery", "steady", "snapshot", "micro")
MODELS = ("model",)
"""Run like a suite, and measure nothing."""
COMMANDS = ("table", "plots", "timeline", "quotes")
"""Each is a module here with ``main(arguments) -> status``."""


def main() -> int:
    """Run what the command line says and return the status."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return int(import_module(f"bench.{sys.argv[1]}").main(sys.argv[2:]))
    # To be told to end is to be interrupted: what was started is ended and removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=[*SUITES, *MODELS, "all"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the suite (all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="small cases, each once")
    parser.add_argument("--trace", metavar="DIR", type=Path, help="write a timeline of each run there")
    args = parser.parse_args()
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"{args.json} cannot be written: there is no folder {args.json.absolute().parent}")
    suites = {
        name: import_module(f"bench.{name}.suite")
        for name in ((*SUITES, *MODELS) if args.suite == "all" else (args.suite,))
    }
    default = [(name, part) for name, suite in suites.items() for part in suite.names(args.quick)]
    others = [(name, part) for name, suite in suites.items() for part in suite.names(not args.quick)]
    known = dict.fromkeys([*default, *others])
    if unknown := set(args.names) - {part for _, part in known}:
        there = ", ".join(dict.fromkeys(part for _, part in known))
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are: {there}")
    parts = [(name, part) for name, part in known if part in args.names] if args.names else default
    command = " ".join(["python -m bench", args.suite, *args.names, *(["--quick"] if args.quick else [])])
    about = machine() | {"quick": args.quick, "date": today(), "commit": commit(), "command": command}
    print(rows.caption(about), flush=True)
    if args.trace:
        trace.destination = trace.Timelines(args.trace)
    return run(suites, parts, about, quick=args.quick, file=args.json)


def run(
    suites: dict[str, Any],
    parts: list[tuple[str, str]],
    about: dict[str, Any],
    *,
    quick: bool,
    file: Path | None,
) -> int:
    """Run parts of suites, print their tables, and write all rows to ``file``; return the status.

    It is 1 if some row is missing by a fault of the bench.
    """
    taken: list[rows.Row] = []
    loads: dict[str, list[float]] = {}
    written = True
    for name, part in parts:
        if trace.destination is not None:
            trace.destination.label = f"{name}-{part}"
        before = load()
        fresh = list(guarded(suites[name], name, part, quick))
        loads[f"{name} {part}"] = sorted([before, load()])
        print(f"\n## {name}: {part}\n\n{rows.table(fresh)}", flush=True)
        taken += fresh
        if file:  # after each, so that what a later one spoils is not lost
            more = {"load_averages": loads, "versions": environment.versions()}
            written = wrote(file, taken, about | more)
    broken = any((one.why_missing or "").startswith(rows.BROKEN) for one in taken)
    return int(broken or not written)


def wrote(file: Path, taken: list[rows.Row], about: dict[str, Any]) -> bool:
    """Write the rows and return whether that went well, so that no full disk ends what is measured."""
    try:
        rows.write(file, taken, about)
    except OSError as error:
        print(f"the rows cannot be written to {file}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def guarded(suite: Any, name: str, part: str, quick: bool) -> Iterator[rows.Row]:
    """Yield the rows of one part, and one that says why if it fails."""
    try:
        yield from suite.rows(part, quick)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        said = (str(error).splitlines() or [""])[0]
        why = f"{rows.BROKEN}{type(error).__name__}: {said}"
        yield rows.missing(name, part, "all", "all", "1", why=why)


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def commit() -> str:
    """Return what is measured, with a mark if files of the product or the bench differ from it.

    Results that lie among them are none of these.
    """

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changed = git("status", "--porcelain", "--", "python", "csrc", "bench", ":(exclude)bench/results")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
