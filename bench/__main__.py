"""`python -m bench SUITE [NAME...] [--json FILE] [--quick]`: benches, and the rows that they write.

    recovery    what a fault costs hpresil and its peers; a NAME is a case, say sigkill-50m-2+1
    steady      what protection costs while nothing happens; a NAME is a case, say 50m-2
    snapshot    what a snapshot costs the training thread; a NAME is a case, say 1gib-idle
    micro       small parts of the product beside their floors; a NAME is a file of bench/micro
    all         all of these

Prints a table of each case as it ends, and writes all rows with what they depend on to FILE. ``--quick``:
fewer cases, smaller sizes, few repeats; such figures show that the benches run, not what the machine can do.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from bench import rows

SUITES = ("recovery", "steady", "snapshot", "micro")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=[*SUITES, "all"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the suite (all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="fewer cases, small sizes, few repeats")
    args = parser.parse_args()
    suites = {
        name: import_module(f"bench.{name}.suite")
        for name in (SUITES if args.suite == "all" else (args.suite,))
    }
    known = [(name, part) for name, suite in suites.items() for part in suite.names(args.quick)]
    if unknown := set(args.names) - {part for _, part in known}:
        there = ", ".join(part for _, part in known)
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are: {there}")
    about = rows.machine() | {"quick": args.quick}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    taken: list[rows.Row] = []
    for name, part in known:
        if args.names and part not in args.names:
            continue
        fresh = list(suites[name].rows(part, args.quick))
        print(f"\n## {name}: {part}\n\n{rows.table(fresh)}", flush=True)
        taken += fresh
        if args.json:  # after each, so that what a later one spoils is not lost
            rows.write(args.json, taken, about)


if __name__ == "__main__":
    main()
