"""`python -m bench timeline TRACE.json -o PICTURE.png`: one recovery as a picture, from a file of --trace.

From 0.1 s before the fault to the first step of the full group after it: a lane for each process, a line in
it for each of its threads, a bar for what it did; a bar that lies in another one is lower. A cross is where a
process was hit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from bench.lanes import lanes, recovery
from bench.plot_lanes import draw
from bench.plot_style import write


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench timeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", type=Path, metavar="TRACE.json")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE", help=".png or .svg")
    args = parser.parse_args(arguments)
    try:
        document = json.loads(args.trace.read_text())
        about = document["otherData"]
        _, length, _ = recovery(document["traceEvents"])
        title = f"{about['contender']}: {about['job']}"
        picture = draw(lanes(document["traceEvents"]), length, title, args.trace.name)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{args.trace} cannot be drawn: {error}")
    print(write(picture, args.output))
    return 0
