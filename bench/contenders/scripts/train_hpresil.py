"""The workload under hpresil: one slot for each part."""

import os

from workload import Workload, bits, loss_of

import hpresil


def main() -> None:
    work = Workload()
    run = hpresil.init()
    work.ballast(int(os.environ.get("RANK", "-1")))
    model = work.build()
    optimizer = work.adam(model)
    run.track(model=model, optimizer=optimizer)
    for step in run.steps(work.steps):
        losses: dict[int, str] = {}
        with step:
            for slot, batch in step.microbatches(lambda step, slot, _: (slot, work.batch(step, slot))):
                loss = loss_of(model(batch))
                work.meet_fault(step.index, run.rank)
                losses[slot] = bits(loss)
                step.backward(loss)
            step.apply(optimizer)
        if step.committed:
            work.marks.step(step.index, rank=run.rank, world=run.world_size, parts=losses)


main()
