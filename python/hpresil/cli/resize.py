"""``hpresil resize``: change how many workers the running job has."""

from __future__ import annotations

import argparse

from hpresil.cli.nodes_of_flags import count
from hpresil.cli.wish import add_flags, tell


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``resize``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resize",
        help="change how many workers the running job has",
        description="Change the size of the full group at the end of a step; what is computed stays the "
        "same. Status 0: the group has that size.",
    )
    parser.add_argument("workers", metavar="W", help="how many workers the full group is to have")
    add_flags(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Ask for it and print the answer."""
    return tell(args, {"verb": "resize", "workers": count("resize", args.workers, 1)})
