"""Small parts of the product beside their floors: every file here that has ``rows(quick)``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from bench.rows import Row

HERE = Path(__file__).parent


def names(quick: bool) -> list[str]:
    """Return the benches, without importing them."""
    found = []
    for path in sorted(HERE.glob("*.py")):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        if any(f.name == "rows" and [a.arg for a in f.args.args] == ["quick"] for f in functions):
            found.append(path.stem)
    return found


def rows(name: str, quick: bool) -> Iterator[Row]:
    """Yield the rows of one bench."""
    yield from import_module(f"bench.micro.{name}").rows(quick)
