"""Where the time went, as one bar whose parts add up to the time elapsed."""

from __future__ import annotations

from hpresil.telemetry.report.drawing import Box, Figure, Item, Words, seconds, text_width

LEFT, RIGHT = 16.0, 944.0
MEANING = {
    "productive": ("compute", "steps of the group"),
    "data": ("agent", "waiting for data, the slowest member's"),
    "degraded": ("spare", "what missing workers would have done"),
    "detection": ("fault", "from a fault to its being noticed"),
    "recovery": ("regroup", "group re-formed, state restored"),
    "recomputed": ("apply", "computed again"),
    "start-up": ("start", "processes, imports, the first group"),
    "other": ("wait", "after the last step: saving, leaving"),
}
NAMES = {"data": "waiting for data"}


def shares(totals: dict[str, float]) -> Figure | None:
    """Return the bar; None if no time has passed."""
    elapsed = sum(totals.values())
    if elapsed <= 0:
        return None
    items: list[Item] = []
    x = LEFT
    for name, (role, _) in MEANING.items():
        if totals[name] <= 0:
            continue
        width = totals[name] / elapsed * (RIGHT - LEFT)
        part = f"{totals[name] / elapsed:.1%}"
        tip = f"{NAMES.get(name, name)}: {seconds(totals[name])}, {part}"
        items.append(Box(x, 8, max(0.0, width - 1), 40, role, tip))
        if text_width(part, 12) + 10 < width:
            ink = "ink" if role in ("wait", "spare", "apply", "start") else "surface"
            items.append(Words(x + width / 2, 32, part, ink, 12, "middle", bold=True))
        x += width
    faults = totals["detection"] + totals["recovery"] + totals["recomputed"]
    training = elapsed - totals["start-up"] - totals["other"]
    title = f"{totals['productive'] / elapsed:.1%} of {seconds(elapsed)} was productive"
    if training > 0 and faults > 0:
        title += f"; faults and resizes took {seconds(faults)}, {faults / training:.1%} of the training time"
    legend = [(role, NAMES.get(name, name)) for name, (role, _) in MEANING.items() if totals[name] > 0]
    note = "Disjoint shares of the time elapsed. Training time is what is neither start-up nor other."
    return Figure("goodput", title, note, legend, 58, items)
