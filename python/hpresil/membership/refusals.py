"""What was turned away at a socket: counted by kind, and the first of each kind logged.

Whoever floods a socket with garbage must not fill the disk with messages about it.
"""

from __future__ import annotations

import logging
from collections import Counter

log = logging.getLogger(__name__)


class Refusals:
    """Counts of what was refused. ``counts``: by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def turn_away(self, kind: str, detail: str) -> None:
        """Count one refusal of ``kind``."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("refused: %s: %s (logged once)", kind, detail)
