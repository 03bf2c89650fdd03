"""What the ranks of a bench do that does not go well, and a receiver of a chain that says nothing."""

from __future__ import annotations

import sys
import time


def counts(rank: int, turns: int, pipe) -> None:
    for turn in range(turns):
        pipe.send((rank, turn))


def says_nothing(rank: int, turns: int, pipe) -> None:
    counts(rank, turns, pipe)
    if rank == 1:
        time.sleep(600)


def dies(rank: int, turns: int, pipe) -> None:
    counts(rank, turns - rank, pipe)
    if rank == 1:
        sys.exit(7)


def ends_badly(rank: int, turns: int, pipe) -> None:
    counts(rank, turns, pipe)
    sys.exit(5 * rank)


if __name__ == "__main__":
    print("1 2", flush=True)
    if sys.argv[1] == "silent":
        time.sleep(600)
