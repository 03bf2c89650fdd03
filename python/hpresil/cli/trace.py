"""``hpresil trace``: what every process of a job did, as one file for Perfetto."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpresil.base.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``trace``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "trace",
        help="write a job's trace for Perfetto",
        description="Write the spans of all processes, the job's events and its recoveries as one Chrome "
        "trace, to be opened in ui.perfetto.dev or chrome://tracing. The job may still run.",
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
        "-o", "--output", metavar="FILE", type=Path, help="the file to write (RUN_DIR/trace.json)"
    )
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the file."""
    from hpresil.telemetry import story, timeline

    found = story.read(args.run_dir)
    path: Path = args.output or args.run_dir / "trace.json"
    try:
        count = timeline.write(found, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another with -o") from error
    lost = sum(process.lost for process in found.processes)
    missing = f"; {lost} older spans are no longer there" if lost else ""
    print(f"{count} entries of {len(found.processes)} processes: {path}{missing}")
    if not found.processes:
        print("the run directory holds no spans: only events are in the file")
    return 0
