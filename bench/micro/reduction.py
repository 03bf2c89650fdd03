"""The canonical reduction beside gloo's own all-reduce, in the same processes and the same run.

    python -m bench.micro.reduction [--mbytes 48] [--ranks 2,4] [--rounds 15] [--nodes K] [--chunk-blocks N]
        [--window N]

With ``--nodes K`` the ranks are spread over K nodes: they read within one and send between two.

Every rank holds one aligned tree node. Prints the milliseconds of a call on the
slowest rank (median and least) and the CPU time of all ranks; the two take turns, so that noise of
the machine meets both. Only the CPU time means much on a machine that does other work.
Ours includes the statistics, the division
and the sums of squares that the gradient norm needs; gloo's is the bare sum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import timedelta

from bench.micro import ranks

WARM_UP, TURN_S = 2, 120.0


class Rank:
    """One rank: its group and gloo's own, and one tree node of gradients with room for the sum."""

    def __init__(self, rank, size, port, arguments):
        import torch
        import torch.distributed as dist

        from hpresil.comm import exchange, reduction, segments
        from hpresil.comm.group import build
        from hpresil.elastic.slots import cover, regular

        torch.set_num_threads(1)
        if arguments.chunk_blocks:
            reduction.CHUNK_BLOCKS = arguments.chunk_blocks
        if arguments.window:
            exchange.WINDOW = arguments.window
        segments.stand_on(str(rank * min(arguments.nodes, size) // size))
        tcp = dist.TCPStore("127.0.0.1", port, None, is_master=False, timeout=timedelta(seconds=30))
        who = {"generation": 1, "rank": rank, "size": size}
        store = dist.PrefixStore("ours", tcp)
        self.group = build(store, **who, hostname="127.0.0.1", timeout_s=30.0, page=None)
        stock = dist.PrefixStore("stock", tcp)
        self.stock = dist.ProcessGroupGloo(stock, rank, size, timedelta(seconds=60))
        self.size, self.carried = size, regular(size, size)
        self.blocks = round(arguments.mbytes * 1e6 / 4 / reduction.BLOCK)
        one = ([torch.float32], [self.blocks * reduction.BLOCK])
        (self.flat,), (self.out,), (self.copy,) = (segments.allocate(*one) for _ in range(3))
        self.flat.normal_()
        self.nodes = {node: [self.flat] for node in cover(size, self.carried[rank])}
        self.stats = torch.zeros(64, dtype=torch.float64)
        self.stats[rank] = 3.0

    def ours(self):
        from hpresil.comm import reduction

        reduction.reduce(
            self.group,
            nodes=self.nodes,
            out=[self.out],
            carried=self.carried,
            slots=self.size,
            stats=self.stats,
            norm_blocks=[self.blocks],
            scale_of=lambda summed: float(summed.sum()),
        )

    def theirs(self):
        self.stock.allreduce([self.copy]).wait()

    def spent(self, call):
        """Return the seconds of a call that all ranks begin together, by the clock and of the processor."""
        self.stock.barrier().wait()
        began, worked = time.perf_counter(), time.process_time()
        call()
        return time.perf_counter() - began, time.process_time() - worked


def rank_main(rank, size, port, arguments, pipe):
    one = Rank(rank, size, port, arguments)
    for _ in range(arguments.rounds + WARM_UP):
        pipe.send([one.spent(call) for call in (one.ours, one.theirs)])
    profile(arguments, rank, one.ours)
    one.stock.barrier().wait()
    one.group.close(2.0)


def profile(arguments, rank, call):
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    for _ in range(5 if arguments.profile else 0):
        profiler.runcall(call)
    if arguments.profile and rank == 0:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(14)


def measure(size, arguments):
    """Return for ours and gloo's: seconds of the slowest rank (median, least), CPU seconds of all ranks."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    each = [(rank, size, store.port, arguments) for rank in range(size)]
    turns = arguments.rounds + WARM_UP
    rounds = ranks.said(rank_main, each, turns=turns, within_s=TURN_S)[WARM_UP:]
    figures = []
    for which in (0, 1):
        walls = [max(rank[which][0] for rank in turn) for turn in rounds]
        works = [sum(rank[which][1] for rank in turn) for turn in rounds]
        figures.append((statistics.median(walls), min(walls), statistics.median(works)))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbytes", type=float, default=48.0)
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chunk-blocks", type=int, default=0)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print(f"{arguments.mbytes:g} MB of fp32 summed over ranks; milliseconds, {arguments.rounds} rounds.\n")
    print("| ranks | canonical | gloo | ratio | least | gloo | ratio | CPU, all ranks | gloo | ratio |")
    print("| --- " * 10 + "|")
    for size in map(int, arguments.ranks.split(",")):
        ours, theirs = measure(size, arguments)
        cells = [
            f"{one * 1e3:.1f} | {other * 1e3:.1f} | {one / other:.2f}"
            for one, other in zip(ours, theirs, strict=True)
        ]
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
