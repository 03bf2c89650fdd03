"""The process group of a script's steps, in which a collective waits no longer than BENCH_HANG_S.

Checkpoints and the rendezvous do not use it: there members wait for one another's files and imports.
"""

import os
from datetime import timedelta

import torch.distributed as dist


def group_of_steps() -> dist.ProcessGroup | None:
    """Return it; None, the default group, if there is no such limit. All members call this together."""
    limit = float(os.environ.get("BENCH_HANG_S") or 0)
    return dist.new_group(timeout=timedelta(seconds=limit)) if limit else None
