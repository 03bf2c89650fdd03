"""From flags to metrics that Prometheus can scrape; nothing is imported for it without ``--metrics-port``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpresil.launch.progress import Progress
from hpresil.membership.server import Server
from hpresil.telemetry.trace import TraceKeeper

if TYPE_CHECKING:
    from hpresil.telemetry.metrics import Metrics, MetricsServer


class Scrapes:
    """Shows a job to Prometheus, from the node that the coordinator lives on.

    Args:
        address: Where to listen; ``port`` too, 0 for a job that shows nothing.
    """

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._server: MetricsServer | None = None

    @property
    def metrics(self) -> Metrics | None:
        """What is shown, None while nothing is."""
        return self._server.metrics if self._server is not None else None

    def open(self) -> None:
        """Listen, unless it does already. Raises ConfigError: the port cannot be listened on."""
        if self._port and self._server is None:
            from hpresil.telemetry.metrics import Metrics, MetricsServer

            self._server = MetricsServer(Metrics(), self._address, self._port)

    def show(self, progress: Progress, coordinator: Server, traces: TraceKeeper) -> None:
        """Show the job from here on."""
        metrics = self.metrics
        if metrics is not None:
            metrics.refused = lambda: coordinator.refused
            progress.on_event = metrics.observe
            traces.on_data = metrics.data_waited

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None
