"""Small parts of the product beside their floors: every file here that has ``rows(quick)``.

A rate is in GB/s, also one by processor time, which its metric says then; a ratio that is to be large has the
unit "ratio_up". The bench stands before the case: "copy_checksum: 512 MiB".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from bench.rows import Row

HERE = Path(__file__).parent
SUITE = "micro"


def names(quick: bool) -> list[str]:
    """Return the benches, without importing them."""
    found = []
    for path in sorted(HERE.glob("*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        if any(f.name == "rows" and [a.arg for a in f.args.args] == ["quick"] for f in functions):
            found.append(path.stem)
    return found


def rows(name: str, quick: bool) -> Iterator[Row]:
    """Yield the rows of one bench, whose name comes before their cases."""
    for row in import_module(f"bench.micro.{name}").rows(quick):
        yield replace(row, suite=SUITE, case=f"{name}: {row.case}")
