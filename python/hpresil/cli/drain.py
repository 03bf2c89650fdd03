"""``hpresil drain``: take a node out of the running job."""

from __future__ import annotations

import argparse

from hpresil.cli.wish import add_flags, tell


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``drain``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "drain",
        help="take a node out of the running job",
        description="Let the workers of a node leave at the end of a step, then its agent. The job goes on "
        "with spares of other nodes, or smaller. Status 0: the node is drained.",
    )
    parser.add_argument("node", metavar="NODE", help="its name, as hpresil status shows it")
    add_flags(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Ask for it and print the answer."""
    return tell(args, {"verb": "drain", "node": args.node})
