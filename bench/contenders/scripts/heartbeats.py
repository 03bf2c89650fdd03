"""Heartbeats of NVRx's ft_launcher, in a script that it or another launcher has started."""

import os
from collections.abc import Callable

MONITOR = "FT_RANK_MONITOR_IPC_SOCKET"
"""It names the socket of this rank's monitor there."""


def begin() -> Callable[[], None]:
    """Tell the monitor of this rank that it has begun; return what sends one heartbeat."""
    if MONITOR not in os.environ:
        return lambda: None
    from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient

    client = RankMonitorClient()
    client.init_workload_monitoring()
    return client.send_heartbeat
