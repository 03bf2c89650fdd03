"""`python -m bench SUITE [NAME...] [--json FILE] [--quick]`: benches, and the rows that they write.

    recovery    what a fault costs hpresil and its peers
    steady      what protection costs while nothing happens
    micro       small parts of the product beside their floors, those of bench/micro or the NAMEs given
    all         all of these

Prints a table of each case as it ends, and writes all rows with what they depend on to FILE. ``--quick``:
smaller sizes and fewer repeats; such figures show that the benches run, not what the machine can do.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from bench import rows

MICRO = Path(__file__).with_name("micro")
SUITES = ("recovery", "steady", "micro")


def names() -> list[str]:
    """Return the benches of bench/micro that have ``rows``, without importing them."""
    found = []
    for path in sorted(MICRO.glob("*.py")):
        body = ast.parse(path.read_text()).body
        if any(isinstance(node, ast.FunctionDef) and node.name == "rows" for node in body):
            found.append(path.stem)
    return found


def modules(suite: str, chosen: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, module) of what has to run."""
    for each in SUITES if suite == "all" else (suite,):
        if each == "micro":
            yield from ((name, f"bench.micro.{name}") for name in chosen or names())
        else:
            yield each, f"bench.{each}.suite"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=[*SUITES, "all"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"with micro, some of: {', '.join(names())}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    args = parser.parse_args()
    if args.names and args.suite != "micro":
        parser.error(f"{args.suite} takes no names")
    if unknown := set(args.names) - set(names()):
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    about = rows.machine() | {"quick": args.quick}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    taken: list[rows.Row] = []
    for name, module in modules(args.suite, args.names):
        fresh = list(import_module(module).rows(args.quick))
        print(f"\n## {name}\n\n{rows.table(fresh)}", flush=True)
        taken += fresh
        if args.json:  # after each, so that what a later one spoils is not lost
            rows.write(args.json, taken, about)


if __name__ == "__main__":
    main()
