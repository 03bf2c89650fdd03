"""Train a small Llama on bytes, protected by hpresil.

    hpresil data build corpus.tokens SOURCES…
    hpresil run --nproc-per-node 3 --spares 1 --slots 8 examples/train_llama.py --data corpus.tokens

`python examples/train_llama.py --data corpus.tokens` works as well: one worker, no launcher.
The size of a step (slots, microbatches, microbatch size) and the seed are flags of `hpresil run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch.nn import functional

import hpresil
from hpresil.recipes.llama.config import LlamaConfig
from hpresil.recipes.llama.model import Llama
from hpresil.recipes.llama.optimizer import adamw, schedule


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(description="Train a small Llama on bytes.")
    parser.add_argument("--data", required=True, help="token file made by `hpresil data build`")
    parser.add_argument("--steps", type=int, default=400, help="length of the training in steps")
    parser.add_argument("--stop-at", type=int, help="leave after this many steps of it")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=10, help="steps until it is reached")
    parser.add_argument("--seq-len", type=int, default=64, help="tokens of a sequence")
    parser.add_argument("--dim", type=int, default=256, help="width of the model")
    parser.add_argument("--hidden", type=int, default=688, help="width of its feed-forward")
    parser.add_argument("--layers", type=int, default=4, help="number of blocks")
    parser.add_argument("--heads", type=int, default=4, help="attention heads of a block")
    parser.add_argument("--dropout", type=float, default=0.1)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train; every worker of the job runs this."""
    args = arguments(argv)
    run = hpresil.init()
    torch.manual_seed(0)  # the same first weights in every run of this script
    sizes = {name: getattr(args, name) for name in ("dim", "hidden", "layers", "heads", "dropout")}
    model = Llama(LlamaConfig(max_seq_len=args.seq_len, **sizes)).to(run.device)
    optimizer = adamw(model, lr=args.lr)
    scheduler = schedule(optimizer, warmup=args.warmup, total=args.steps)
    data = hpresil.TokenDataset(args.data, seq_len=args.seq_len)
    run.track(model=model, optimizer=optimizer, scheduler=scheduler)

    for step in run.steps(args.stop_at or args.steps):
        with step:
            for batch in step.microbatches(data):
                logits = model(batch.inputs)
                step.backward(functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))
            step.apply(optimizer, max_norm=1.0)
            scheduler.step()  # part of the step: it happens on every worker, or on none
        run.log(loss=step.loss, lr=scheduler.get_last_lr()[0])


if __name__ == "__main__":
    main()
