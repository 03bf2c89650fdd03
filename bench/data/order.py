"""Cost of the data order: nanoseconds per index and of a resume, over sizes of the data set.

    PYTHONPATH=python python bench/data/order.py [--indices 20000] [--json FILE]

``sequential`` is what training does (consecutive positions); ``random`` jumps over the whole epoch, so no
cache helps; ``resume`` is the first index at a far position with all caches empty.
Medians, in CPU time of the thread.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence

from hpresil.data import order

RUNS = 5


def per_index_ns(positions: Sequence[int], size: int) -> float:
    runs = []
    for seed in range(RUNS):
        begin = time.thread_time_ns()
        for position in positions:
            order.sample_index(position, size, seed)
        runs.append((time.thread_time_ns() - begin) / len(positions))
    return statistics.median(runs)


def resume_ns(position: int, size: int) -> float:
    runs = []
    for seed in range(RUNS * 20):
        for cache in (order._epoch_order, order._window_permutation, order._block_at):
            cache.cache_clear()
        begin = time.thread_time_ns()
        order.sample_index(position, size, seed)
        runs.append(time.thread_time_ns() - begin)
    return statistics.median(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--indices", type=int, default=20_000, help="indices per run (default: 20000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well")
    args = parser.parse_args()
    jumps = random.Random(0)
    rows = []
    print(f"{'size':>14} {'sequential ns':>14} {'random ns':>12} {'resume ns':>12}")
    for exponent in range(6, 13):
        size = 10**exponent
        begin = 3 * size + size // 3
        row = {
            "size": size,
            "sequential_ns": per_index_ns(range(begin, begin + args.indices), size),
            "random_ns": per_index_ns([jumps.randrange(size) for _ in range(args.indices)], size),
            "resume_ns": resume_ns(begin, size),
        }
        rows.append(row)
        print(f"{size:>14} {row['sequential_ns']:>14.0f} {row['random_ns']:>12.0f} {row['resume_ns']:>12.0f}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
