"""``hpresil report``: a job as a page to look at and to show."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpresil.base.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``report``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        help="write a report of a job",
        description="Write one HTML file about a job: the loss with faults and resizes marked, each recovery "
        "from inside, where the time went, who was in when. It needs no network. The job may still run.",
    )
    parser.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        nargs="?",
        type=Path,
        default=Path("runs/latest"),
        help="run directory (runs/latest)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the file to write (RUN_DIR/report.html)"
    )
    parser.add_argument(
        "--png", metavar="DIR", type=Path, help="write each figure as a picture as well (needs matplotlib)"
    )
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the report."""
    from hpresil.telemetry import story
    from hpresil.telemetry.report import page

    found = story.read(args.run_dir)
    figures = page.figures(found)
    path: Path = args.output or args.run_dir / "report.html"
    try:
        page.write(page.html(found, figures), path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another with -o") from error
    print(path)
    if args.png is not None:
        from hpresil.telemetry.report import png

        for picture in png.write(figures, args.png):
            print(picture)
    return 0
