"""What verbs have in common that read a run directory and write one file from it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpresil.base.errors import ConfigError


def add_places(parser: argparse.ArgumentParser, file: str) -> None:
    """Add RUN_DIR, and -o, whose default is ``file`` in it."""
    parser.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        nargs="?",
        type=Path,
        default=Path("runs/latest"),
        help="run directory (runs/latest)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help=f"the file to write (RUN_DIR/{file})"
    )
    parser.set_defaults(default_file=file)


@contextmanager
def output(args: argparse.Namespace) -> Iterator[Path]:
    """Yield the file to write. Raises ConfigError if the block cannot write it."""
    path: Path = args.output or args.run_dir / args.default_file
    try:
        yield path
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another with -o") from error
