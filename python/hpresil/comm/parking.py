"""What was given up and has not ended: threads that gloo holds until its own timeout.

They cannot be ended, and what they work on must not be freed under them, so it is kept here until then.

Thread safety: all functions from any thread.
"""

from __future__ import annotations

import threading

_parked: list[tuple[threading.Thread, str, object]] = []
_lock = threading.Lock()


def park(thread: threading.Thread, what: str, keeps: object = None) -> None:
    """Give ``thread`` up, and keep ``keeps`` until it has ended; ``what`` names it in `parked`."""
    with _lock:
        _parked.append((thread, what, keeps))


def parked() -> list[str]:
    """Return what was given up and has not ended yet, in words."""
    with _lock:
        _parked[:] = [parked for parked in _parked if parked[0].is_alive()]
        return [what for _, what, _ in _parked]
