"""`python -m bench table RESULTS.json...`: the rows of earlier runs as Markdown tables, a suite at a time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench table", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    args = parser.parse_args(arguments)
    try:
        pages = [page(path) for path in args.results]
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(pages))
    return 0


def page(path: Path) -> str:
    """Return the tables of one file, below what its figures depend on. Raises ValueError."""
    about, taken = rows.read(path)
    lines = [f"# {path.name}", "", rows.caption(about), ""]
    for suite in dict.fromkeys(one.suite for one in taken):
        lines += [f"## {suite}", "", rows.table(one for one in taken if one.suite == suite), ""]
    return "\n".join(lines)
