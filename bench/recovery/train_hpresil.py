"""The workload under hpresil: one slot of a DDP rank's batch for each worker.

hpresil run --nproc-per-node 2 --spares 1 --slots 2 \\
    bench/recovery/train_hpresil.py --out DIR --steps 40 [--kill-step 25]

The worker of rank 1 kills itself after the forward pass of the kill step, once, as the peers' scripts do.
With ``--profile STEPS`` rank 0 writes what cProfile saw in as many steps to ``profile.pstats``.
"""

import argparse
import cProfile
import os
from pathlib import Path

import workload

import hpresil

PROFILE_FROM = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--kill-step", type=int, default=-1)
    parser.add_argument("--resident", type=float, default=0.0, help="GiB in use in the worker that is killed")
    parser.add_argument("--profile", type=int, default=0)
    args = parser.parse_args()
    run = hpresil.init()
    marks, profile = workload.Marks(args.out), cProfile.Profile()
    ballast = workload.resident(args.resident if os.environ.get("RANK") == str(workload.KILLED_RANK) else 0)
    model = workload.build()
    optimizer = workload.adam(model)
    run.track(model=model, optimizer=optimizer)
    marks.add("built", ballast=0 if ballast is None else len(ballast))
    for step in run.steps(args.steps):
        if args.profile and run.rank == 0 and step.index == PROFILE_FROM:
            profile.enable()
        marks.begin()
        with step:
            for batch in step.microbatches(lambda step, slot, j: workload.batch(step, slot)):
                marks.part("hand out")
                loss = workload.loss_of(model(batch))
                marks.part("forward")
                if step.index == args.kill_step and run.rank == workload.KILLED_RANK:
                    workload.die_once(args.out)
                step.backward(loss)
                marks.part("backward")
            marks.part("fold, reduction, vote")
            step.apply(optimizer)
            marks.part("apply")
        marks.part("end of block")
        if step.committed:
            marks.end(step.index, run.rank)
        if args.profile and run.rank == 0 and step.index == PROFILE_FROM + args.profile - 1:
            profile.disable()
            profile.dump_stats(args.out / "profile.pstats")


main()
