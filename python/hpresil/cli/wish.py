"""What `hpresil drain` and `hpresil resize` have in common: whom to ask, how long to wait, what to print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hpresil.base.errors import ConfigError

WAIT_S = 600.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a verb that asks the running job for something."""
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("runs/latest"),
        metavar="DIR",
        help="run directory of the job, or of one of its nodes: RUN_DIR/nodes/NAME (runs/latest)",
    )
    parser.add_argument(
        "--timeout",
        default=f"{WAIT_S:g}",
        metavar="SECONDS",
        help="how long to wait until it is done; 0: until it is accepted. It goes on without us (600)",
    )


def tell(args: argparse.Namespace, wish: dict[str, Any]) -> int:
    """Ask the job's agent, print the one answer, and return 0 if it is done (or accepted, if asked so)."""
    from hpresil.launch.control import ask

    timeout_s = _seconds(args.timeout)
    answer = ask(args.run_dir, wish, timeout_s)
    if answer.failed:
        print(f"hpresil {args.verb}: {answer.text}", file=sys.stderr)
        return 1
    if answer.done or timeout_s == 0:
        print(answer.text)
        return 0
    print(f"hpresil {args.verb}: {answer.text}; not done after {timeout_s:g} s, it goes on", file=sys.stderr)
    return 1


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e7:
        raise ConfigError(f"--timeout {text}: give seconds, at least 0")
    return found
