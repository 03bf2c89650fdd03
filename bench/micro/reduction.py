"""The canonical reduction beside gloo's own all-reduce, in the same processes and the same run.

    python bench/micro/reduction.py [--mbytes 48] [--ranks 2,4] [--rounds 15] [--nodes K] [--chunk-blocks N]
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
import multiprocessing
import statistics
import time
from datetime import timedelta


def rank_main(rank, size, port, arguments, pipe):
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
    group = build(
        dist.PrefixStore("ours", tcp),
        generation=1,
        rank=rank,
        size=size,
        hostname="127.0.0.1",
        timeout_s=30.0,
        page=None,
    )
    stock = dist.ProcessGroupGloo(dist.PrefixStore("stock", tcp), rank, size, timedelta(seconds=60))
    blocks = round(arguments.mbytes * 1e6 / 4 / reduction.BLOCK)
    one = ([torch.float32], [blocks * reduction.BLOCK])
    (flat,), (out,), (copy,) = (segments.allocate(*one) for _ in range(3))
    flat.normal_()
    carried = regular(size, size)
    nodes = {node: [flat] for node in cover(size, carried[rank])}
    stats = torch.zeros(64, dtype=torch.float64)
    stats[rank] = 3.0

    def ours():
        reduction.reduce(
            group,
            nodes=nodes,
            out=[out],
            carried=carried,
            slots=size,
            stats=stats,
            norm_blocks=[blocks],
            scale_of=lambda summed: float(summed.sum()),
        )

    def theirs():
        stock.allreduce([copy]).wait()

    for _ in range(arguments.rounds + 2):
        spent = []
        for call in (ours, theirs):
            stock.barrier().wait()
            began, worked = time.perf_counter(), time.process_time()
            call()
            spent.append((time.perf_counter() - began, time.process_time() - worked))
        pipe.send(spent)
    profile(arguments, rank, ours)
    stock.barrier().wait()
    group.close(2.0)


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
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=rank_main, args=(rank, size, store.port, arguments, theirs), daemon=True
        )
        process.start()
        pipes.append(ours)
        processes.append(process)
    rounds = [[pipe.recv() for pipe in pipes] for _ in range(arguments.rounds + 2)][2:]
    for process in processes:
        process.join(60)
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
