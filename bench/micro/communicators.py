"""Many communicators at once beside one by one, and the first collective on a cold and on a warmed one.

    python -m bench micro communicators [--quick]

Over gloo, between processes of this machine, through the store of the bench. A figure is the slowest rank's.
The contenders take turns; "torch, one by one" builds the same number of stock process groups. The floor of a
first collective is the same one repeated on the same communicator: what is above it is what a communicator
has to do once.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from datetime import timedelta

from bench.micro import ranks
from bench.rows import Row, missing, row

SUITE = "micro"
TIMEOUT_S, TURN_S = 60.0, 300.0
"""What one operation may take, and a turn of a rank with its start."""
SUM_BYTES = 16 << 20
BUILDS = ("torch, one by one", "one by one", "in bulk")
STARTS = ("cold", "pre-warmed", "repeated")


class Bench:
    """One rank."""

    def __init__(self, rank: int, size: int, count: int, port: int) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        self.rank, self.size, self.count = rank, size, count
        self.tcp = dist.TCPStore(
            "127.0.0.1", port, None, is_master=False, timeout=timedelta(seconds=TIMEOUT_S)
        )
        # A client that waits for a key answers nobody else, so every lookup under way has its own.
        self.clients: queue.Queue = queue.Queue()
        self.control = self.stock("control")
        self.values = torch.ones(SUM_BYTES, dtype=torch.uint8)
        self.generation = 0

    def stock(self, name: str):
        import torch.distributed as dist

        store = dist.PrefixStore(name, self.tcp)
        return dist.ProcessGroupGloo(store, self.rank, self.size, timedelta(seconds=TIMEOUT_S))

    def build(self, names: list[str]):
        """Build communicators under these names, of this turn's generation."""
        from hpresil.comm.communicators import Wanted
        from hpresil.comm.gloo_communicators import GlooCommunicators

        space = f"generation {self.generation}/"

        def get(keys: list[str], _: float) -> list[bytes]:
            client = self.client()
            try:
                return client.multi_get([space + key for key in keys])
            finally:
                self.clients.put(client)

        makes = GlooCommunicators(
            lambda key, value: self.tcp.set(space + key, value), get, hostname="127.0.0.1"
        )
        return makes.init_many(
            self.generation, [Wanted(name, self.rank, self.size) for name in names], TIMEOUT_S
        )

    def client(self):
        try:
            return self.clients.get_nowait()
        except queue.Empty:
            return self.tcp.clone()

    def built(self, how: str) -> float:
        """Return the seconds of building ``count`` in this way."""
        self.generation += 1
        names = [f"group {i}" for i in range(self.count)]
        self.control.barrier().wait()
        began = time.perf_counter()
        if how == "in bulk":
            made = self.build(names)
        elif how == "one by one":
            made = [each for name in names for each in self.build([name])]
        else:
            made = [self.stock(f"{self.generation} {name}") for name in names]
        took = time.perf_counter() - began
        self.control.barrier().wait()
        for each in made if how != "torch, one by one" else ():
            each.close()
        return took

    def first(self) -> dict[str, float]:
        """Return the seconds of a sum: on a cold communicator, on a warmed one, and once more."""
        from hpresil.comm.communicators import warm
        from hpresil.comm.warming import MIDDLE_BYTES, SMALL_BYTES, Edge, plan

        self.generation += 1
        cold, warmed = self.build(["cold", "warmed"])
        ring = [Edge(at, (at + 1) % self.size, MIDDLE_BYTES) for at in range(self.size)]
        sums = (SMALL_BYTES, MIDDLE_BYTES, SUM_BYTES)
        warm(warmed, plan(self.size, self.rank, ring, sums), TIMEOUT_S)
        took = {
            "cold": self.sum(cold),
            "pre-warmed": self.sum(warmed),
            "repeated": self.sum(cold),
        }
        cold.close()
        warmed.close()
        return took

    def sum(self, communicator) -> float:
        from hpresil.comm.communicators import Operation

        self.control.barrier().wait()
        began = time.perf_counter()
        communicator.run([[Operation("all_reduce", self.values, self.values)]], "a sum", TIMEOUT_S)
        return time.perf_counter() - began


def rank_main(rank: int, size: int, count: int, port: int, repeats: int, pipe) -> None:
    bench = Bench(rank, size, count, port)
    for _ in range(repeats + 1):
        pipe.send({how: bench.built(how) for how in BUILDS} | bench.first())
    bench.control.barrier().wait()


def measure(size: int, count: int, repeats: int) -> dict[str, list[float]]:
    """Return the slowest rank's milliseconds of each repeat, by contender; the first repeat is dropped."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    arguments = [(rank, size, count, store.port, repeats) for rank in range(size)]
    turns = ranks.said(rank_main, arguments, turns=repeats + 1, within_s=TURN_S)[1:]
    return {name: [max(rank[name] for rank in turn) * 1e3 for turn in turns] for name in BUILDS + STARTS}


def rows(quick: bool) -> Iterator[Row]:
    """Yield the figures of this machine."""
    cases = [(2, 8)] if quick else [(2, 8), (2, 32), (4, 8), (4, 32)]
    for size, count in cases:
        figures = measure(size, count, 5 if quick else 9)
        stock = sorted(figures[BUILDS[0]])[len(figures[BUILDS[0]]) // 2]
        for how in BUILDS:
            yield row(
                SUITE,
                f"{count} groups of {size} ranks built",
                how,
                metric="until all are ready",
                unit="ms",
                figures=figures[how],
                peer=stock,
            )
        floor = sorted(figures["repeated"])[len(figures["repeated"]) // 2]
        for how in STARTS:
            yield row(
                SUITE,
                f"first sum of {SUM_BYTES >> 20} MiB, {size} ranks, {count} groups before",
                how,
                metric="one all-reduce",
                unit="ms",
                figures=figures[how],
                floor=floor,
            )
    for metric in ("until all are ready", "one all-reduce"):
        yield missing(SUITE, "the same over NCCL", "in bulk", metric, "ms", why="no NVIDIA device here")
