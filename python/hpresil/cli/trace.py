"""``hpresil trace``: what every process of a job did, as one file for Perfetto."""

from __future__ import annotations

import argparse

from hpresil.cli.outputs import add_places, output


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``trace``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "trace",
        help="write a job's trace for Perfetto",
        description="Write the spans of all processes, the job's events and its recoveries as one Chrome "
        "trace, to be opened in ui.perfetto.dev or chrome://tracing. The job may still run.",
    )
    add_places(parser, "trace.json")
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the file."""
    from hpresil.telemetry import story, timeline

    found = story.read(args.run_dir)
    with output(args) as path:
        count = timeline.write(found, path)
    lost = sum(process.lost for process in found.processes)
    missing = f"; {lost} older spans are no longer there" if lost else ""
    print(f"{count} entries of {len(found.processes)} processes: {path}{missing}")
    if not found.processes:
        print("the run directory holds no spans: only events are in the file")
    return 0
