"""``hpresil report``: a job as a page to look at and to show."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpresil.cli.outputs import add_places, output


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``report``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        help="write a report of a job",
        description="Write one HTML file about a job: the loss with faults and resizes marked, each recovery "
        "from inside, where the time went, who was in when. It needs no network. The job may still run.",
    )
    add_places(parser, "report.html")
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
    with output(args) as path:
        page.write(page.html(found, figures), path)
    print(path)
    if args.png is not None:
        from hpresil.telemetry.report import png

        for picture in png.write(figures, args.png):
            print(picture)
    return 0
