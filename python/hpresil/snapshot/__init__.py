"""What must survive: capturing tracked state, restoring it bit for bit, and frames of shared memory.

`Snapshots` is for scripts that use nothing else of hpresil, `HeldPlace` for state that stays on its device
when a worker dies. Both are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpresil.snapshot.held_place import HeldPlace as HeldPlace
    from hpresil.snapshot.snapshots import Snapshots as Snapshots

__all__ = ["HeldPlace", "Snapshots"]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in __all__:
        raise AttributeError(
            f"module 'hpresil.snapshot' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    if name == "HeldPlace":
        from hpresil.snapshot.held_place import HeldPlace

        return HeldPlace
    from hpresil.snapshot.snapshots import Snapshots

    return Snapshots
