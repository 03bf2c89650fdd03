"""From flags to metrics that Prometheus can scrape; nothing is imported for it without ``--metrics-port``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpresil.launch.progress import Progress
from hpresil.membership.server import Server
from hpresil.telemetry.trace import TraceKeeper

if TYPE_CHECKING:
    from hpresil.telemetry.metrics import Metrics

Connect = Callable[[Progress, Server, TraceKeeper], None]
"""Shows a job to whoever looks at it from outside."""


@contextmanager
def serve_metrics(address: str, port: int) -> Iterator[Metrics | None]:
    """Serve metrics while the block runs; yield them, or None for port 0.

    Raises:
        ConfigError: The port cannot be listened on. Nothing was started then.
    """
    if not port:
        yield None
        return
    from hpresil.telemetry.metrics import Metrics, MetricsServer

    server = MetricsServer(Metrics(), address, port)
    try:
        yield server.metrics
    finally:
        server.close()


def connect(metrics: Metrics | None, progress: Progress, coordinator: Server, traces: TraceKeeper) -> None:
    """Let ``metrics`` see the job from here on."""
    if metrics is not None:
        metrics.refused = lambda: coordinator.refused
        progress.on_event = metrics.observe
        traces.on_data = metrics.data_waited
