"""What must survive: capturing tracked state, restoring it bit for bit, and frames of shared memory.

`Snapshots` is for scripts that use nothing else of hpresil. It is looked up when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpresil.snapshot.snapshots import Snapshots as Snapshots

__all__ = ["Snapshots"]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in __all__:
        raise AttributeError(
            f"module 'hpresil.snapshot' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    from hpresil.snapshot.snapshots import Snapshots

    return Snapshots
