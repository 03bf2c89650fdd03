"""``hpresil status``: who is in the running job, what everybody does, and how the last recovery went."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``status``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "status",
        help="show the running job",
        description="Show the members of the running job, the slots they carry and the last recovery.",
    )
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs/latest"), metavar="DIR", help="run directory (runs/latest)"
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")
    return parser


def main(args: argparse.Namespace) -> int:
    """Ask the job's agent and print its answer."""
    from hpresil.launch.status import ask

    found = ask(args.run_dir)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"generation {found['generation']}, newest committed step {found['step']}")
    table = Table("role", "rank", "pid", "state", "slots", "node")
    for member in found["members"]:
        rank = "" if member["rank"] is None else str(member["rank"])
        slots = " ".join(map(str, member["slots"]))
        table.add_row(member["role"], rank, str(member["pid"]), member["state"], slots, member["node"])
    console.print(table)
    phases = ", ".join(
        f"{name.removesuffix('_ms')} {ms:.1f} ms" for name, ms in found["last_recovery"].items()
    )
    console.print(f"last recovery: {phases or 'none'}")
    if found["refused"]:
        refused = ", ".join(f"{count} {kind}" for kind, count in sorted(found["refused"].items()))
        console.print(f"turned away at this node's sockets: {refused} (see agent.log)")
    return 0
