"""Real text that every machine has: the source code of Python's own standard library, as bytes."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from hpresil.base.errors import DataError
from hpresil.data.build import Built, build

INSTALLED = frozenset({"site-packages", "dist-packages"})  # packages that the user has added


def python_sources(stdlib: Path | None = None) -> list[Path]:
    """Return the readable ``*.py`` files of the standard library, sorted by path.

    Args:
        stdlib: Where it lies; by default where this interpreter has it.
    """
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    return sorted(
        path
        for path in root.rglob("*.py")
        if not INSTALLED & set(path.relative_to(root).parts) and path.is_file() and os.access(path, os.R_OK)
    )


def build_corpus(out: Path, stdlib: Path | None = None) -> Built:
    """Write the standard library's source code to the token file ``out``.

    Raises:
        DataError: there is none (an interpreter that has its library in an archive), or ``out`` cannot
            be written.
        ConfigError: ``out`` exists.
    """
    sources = python_sources(stdlib)
    if not sources:
        where = stdlib or sysconfig.get_path("stdlib")
        raise DataError(f"no Python source code below {where}; build a corpus with `hpresil data build`")
    return build(out, sources)
