"""What a span costs: `python bench/micro/spans.py [--run-dir DIR] [--json FILE]`.

Nanoseconds of processor time for one empty span, best of several rounds. With a run directory also how many
spans the training thread of its busiest worker writes in a step, and which share of the median step they are.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from hpresil import native
from hpresil.base import span_ring, spans
from hpresil.telemetry import story

CAPACITY = 8192


def nested(count: int) -> None:
    for slot in range(count):
        with spans.span("slot", slot=slot):
            pass


def cost_ns(call: Callable[[int], None], count: int, rounds: int) -> float:
    """Return processor time for one span, in nanoseconds: the best round."""
    found = []
    for _ in range(rounds):
        begun = time.thread_time_ns()
        call(count)
        found.append((time.thread_time_ns() - begun) / count)
    return min(found)


def measure(count: int, rounds: int) -> dict[str, float]:
    figures = {"nobody looks": cost_ns(nested, count, rounds)}
    fd = native.memfd("bench", span_ring.size(CAPACITY))
    with mmap.mmap(fd, 0) as memory:
        made = span_ring.header(capacity=CAPACITY, pid=0, worker=0, wall_offset_ns=0, node="bench")
        memory[: span_ring.HEADER_BYTES] = bytes(made)
    spans.attach(fd)
    os.close(fd)
    figures["recorded"] = cost_ns(nested, count, rounds)
    native.show_spans()
    figures["recorded, NVTX without a profiler"] = cost_ns(nested, count, rounds)
    return figures


def share(run_dir: Path, cost: float) -> tuple[float, float, float]:
    """Return spans a step of the busiest worker, the median step in seconds, and the spans' share of it."""
    told = story.read(run_dir)
    times = [event["t"] for event in told.all("StepCompleted")]
    step_s = statistics.median(b - a for a, b in pairwise(times))
    counts = []
    for process in told.processes:
        if process.worker >= 0:
            steps = Counter(a.step for a in process.activities if a.track == 0 and a.step >= 1)
            counts.append(statistics.median(steps.values()) if steps else 0)
    return max(counts), step_s, max(counts) * cost / 1e9 / step_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="spans in a round (20000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, of which the best counts (9)")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="a job to take the share of")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    figures = measure(args.count, args.rounds)
    print("| one span | ns of processor time |\n| --- | ---: |")
    for name, ns in figures.items():
        print(f"| {name} | {ns:,.0f} |")
    result: dict[str, object] = {"span_ns": figures}
    if args.run_dir is not None:
        count, step_s, part = share(args.run_dir, figures["recorded, NVTX without a profiler"])
        print(f"\n{count:g} spans a step of {step_s * 1e3:.1f} ms (median): {part:.4%} of it")
        result |= {"spans_a_step": count, "step_s": step_s, "share": part}
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
