"""`python -m bench micro [NAME...] [--json FILE] [--quick]`: the benches of bench/micro, one by one.

Runs every file there that has ``rows(quick)`` (or those named), prints a table of each as it ends, and
writes all rows with what they depend on to FILE. ``--quick``: smaller sizes and fewer repeats; such figures
show that the benches run, not what the machine can do.
"""

from __future__ import annotations

import argparse
import ast
from importlib import import_module
from pathlib import Path

from bench import rows

MICRO = Path(__file__).with_name("micro")


def names() -> list[str]:
    """Return the benches that have ``rows``, without importing them."""
    found = []
    for path in sorted(MICRO.glob("*.py")):
        body = ast.parse(path.read_text()).body
        if any(isinstance(node, ast.FunctionDef) and node.name == "rows" for node in body):
            found.append(path.stem)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", choices=["micro"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names())} (all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    args = parser.parse_args()
    if unknown := set(args.names) - set(names()):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    about = rows.machine() | {"quick": args.quick}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    taken: list[rows.Row] = []
    for name in args.names or names():
        fresh = list(import_module(f"bench.micro.{name}").rows(args.quick))
        print(f"\n## {name}\n\n{rows.table(fresh)}", flush=True)
        taken += fresh
        if args.json:  # after each, so that what a later one spoils is not lost
            rows.write(args.json, taken, about)


if __name__ == "__main__":
    main()
