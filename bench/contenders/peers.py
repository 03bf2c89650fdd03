"""Which of the other systems hpresil's figures are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from bench.contenders import Contender

OURS = "hpresil"
BASE = "no protection (DDP)"


def best(contenders: Sequence[Contender], figures: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """Return the least median of the other systems that protect something, as keywords of `row`.

    Args:
        figures: By the names of the contenders; less is better.

    Returns:
        ``peer`` among their default configurations, ``tuned_peer`` among those that were tuned for this
        workload; None where there is no figure.
    """
    found: dict[str, list[float]] = {"peer": [], "tuned_peer": []}
    for contender in contenders:
        if contender.name.startswith(OURS) or contender.name == BASE or not figures.get(contender.name):
            continue
        which = "tuned_peer" if contender.tuned else "peer"
        found[which].append(statistics.median(figures[contender.name]))
    return {which: min(those, default=None) for which, those in found.items()}
