"""Counter-based random streams: every generator is a function of (seed, step, slot, use).

Torch's default generators, `random` and NumPy's legacy generator are set when a step begins, when a
slot begins, after the loop over microbatches and in `apply`. So a slot draws the same numbers whichever
rank carries it, and what is drawn outside a slot is equal on every rank, whatever it carried before.

Not covered: generators the script makes itself; key them with ``step.index``.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from hpresil.base.keys import key

OUTSIDE = -1  # the place of draws that belong to no slot


def set_generators(seed: int, step: int, slot: int, use: str) -> None:
    """Set the default generators of torch (all devices), `random` and NumPy.

    Must be called on the training thread. ``use`` is "begin", "slot", "reduced" or "apply".
    """
    value = key(seed, step, slot, use)
    # Torch's CPU generator keeps 32 bits of a seed, so `key` has to mix the counter into all bits.
    # `torch.manual_seed` would also queue calls for devices that are not in use, 0.2 ms each time.
    torch.default_generator.manual_seed(value >> 1)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value >> 1)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
