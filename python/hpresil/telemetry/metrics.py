"""What an agent shows to Prometheus, from its job's events. `docs/metrics.md` has names and units.

The agent hands every event to `Metrics.observe` on its own thread; a scrape comes on a thread of the HTTP
server. Both hold one lock for microseconds. Nothing is computed for scrapes that nobody makes, and nothing
grows with the length of the job.

Not guaranteed: anything against readers. What is served has no password and no encryption; it listens on the
loopback address unless told otherwise.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError
from hpresil.telemetry.goodput import CATEGORIES, REMEMBERED_STEPS, Ledger
from hpresil.telemetry.recovery import recoveries

STATES = ("starting", "spare", "member")
PHASES = ("detect", "regroup", "restore", "first_step", "total")
STEP_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300)
RECOVERY_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
CLOSE_S = 2.0
POLL_S = 0.1
SCRAPE_S = 5.0
MAX_SCRAPES = 16

Event = Mapping[str, Any]


class Metrics:
    """The metrics of one agent.

    Args:
        clock: The clock of the events, in monotonic seconds.

    Attributes:
        refused: Returns how many messages were refused, by kind; called for each scrape, on its thread.
        scrapes_refused: Returns how many connections to the metrics' own port got no answer.
    """

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.refused: Callable[[], Mapping[str, int]] = dict
        self.scrapes_refused: Callable[[], int] = int
        self._generation = Gauge("hpresil_generation", "Membership counter.", registry=registry)
        self._step = Gauge("hpresil_step", "Newest committed step; -1 before the first.", registry=registry)
        self._step.set(-1)
        self._workers = Gauge("hpresil_workers", "Live workers by state.", ["state"], registry=registry)
        self._wanted = Gauge("hpresil_workers_wanted", "Size of the full group.", registry=registry)
        self._faults = Counter("hpresil_faults", "Workers lost, by kind.", ["kind"], registry=registry)
        self._moved = Counter(
            "hpresil_moved_bytes", "State copied, by direction.", ["direction"], registry=registry
        )
        self._step_seconds = Histogram(
            "hpresil_step_seconds", "Time between completed steps.", buckets=STEP_BUCKETS, registry=registry
        )
        self._recovery = Histogram(
            "hpresil_recovery_seconds",
            "Changes of the group by phase.",
            ["phase"],
            buckets=RECOVERY_BUCKETS,
            registry=registry,
        )
        for state in STATES:
            self._workers.labels(state)
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._waits: dict[int, dict[int, float]] = {}
        self._states: dict[int, str] = {}
        self._story: list[Event] = []
        self._completed: float | None = None
        registry.register(self)

    def observe(self, event: Event) -> None:
        """Take in the next event."""
        with self._lock:
            self._ledger.add(event)
            match event["event"]:
                case "StepCommitted":
                    self._step.set(event["step"])
                case "StepCompleted":
                    self._step_completed(event)
                case "FrameSealed":
                    self._moved.labels("sealed").inc(event["frame_bytes"])
                case "Restored":
                    self._moved.labels("restored").inc(event["bytes"])
                    self._story.append(event)
                case "Decided" | "GroupBuilt":
                    self._story.append(event)
                case _:
                    self._membership(event)

    def data_waited(self, worker: int, step: int, seconds: float) -> None:
        """A worker waited once more for data of ``step``; any thread."""
        with self._lock:
            waits = self._waits.setdefault(step, {})
            waits[worker] = waits.get(worker, 0.0) + seconds
            self._ledger.data_waited(step, waits[worker])
            while len(self._waits) > REMEMBERED_STEPS:
                del self._waits[next(iter(self._waits))]

    def collect(self) -> Iterator[Metric]:
        """Yield what is looked up when somebody asks; called by the registry."""
        refused = CounterMetricFamily(
            "hpresil_refused_messages", "Messages and connections turned away.", labels=["kind"]
        )
        for kind, count in sorted({**self.refused(), "scrape": self.scrapes_refused()}.items()):
            refused.add_metric([kind], count)
        yield refused
        goodput = GaugeMetricFamily(
            "hpresil_goodput_seconds", "Time of the job by cause.", labels=["category"]
        )
        with self._lock:
            totals = self._ledger.totals(self._clock())
        for category in CATEGORIES:
            goodput.add_metric([category], totals[category])
        yield goodput

    def _step_completed(self, event: Event) -> None:
        if self._completed is not None:
            self._step_seconds.observe(event["t"] - self._completed)
        self._completed = event["t"]
        views = [known for known in self._story if known["event"] == "ViewInstalled"]
        for change in recoveries([dict(known) for known in (*self._story, event)]):
            for phase in PHASES:
                milliseconds = getattr(change, f"{phase}_ms")
                if milliseconds is not None:
                    self._recovery.labels(phase).observe(milliseconds / 1e3)
        self._story = views[-1:]

    def _membership(self, event: Event) -> None:
        name, worker = event["event"], event.get("worker", -1)
        if name == "WorkerStarted":
            self._states[worker] = "starting"
        elif (
            name == "WorkerReady"
            and not event.get("pristine", True)
            and self._states.get(worker) == "starting"
        ):
            self._states[worker] = "spare"
        elif name in ("WorkerLost", "WorkerLeft"):
            self._states.pop(worker, None)
            if name == "WorkerLost":
                self._faults.labels(event["reason"]).inc()
                self._story.append(event)
        elif name in ("JobStarted", "Resized"):
            self._wanted.set(event["workers"])
        elif name == "ViewInstalled":
            self._generation.set(event["generation"])
            self._story.append(event)
            for known, state in self._states.items():
                member = known in event["members"]
                self._states[known] = "member" if member else "spare" if state == "member" else state
        else:
            return
        for state in STATES:
            self._workers.labels(state).set(sum(found == state for found in self._states.values()))


class _Scrape(WSGIRequestHandler):
    """One connection: it gets an answer if it asks in time, and no line in the log."""

    timeout = SCRAPE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


class _Scrapes(ThreadingMixIn, WSGIServer):
    """The HTTP server: a thread for each connection, and not more than `MAX_SCRAPES` of them."""

    daemon_threads = True
    block_on_close = False
    turned_away = 0

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.Semaphore(MAX_SCRAPES)
        super().__init__(address, _Scrape)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.turned_away += 1
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count who hangs up, or says what is no request, too late; a traceback would help nobody."""
        self.turned_away += 1

    def server_bind(self) -> None:
        """Bind without a look at the name service, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class MetricsServer:
    """Serves metrics over HTTP, on threads of its own; who sends something else gets nothing.

    Args:
        metrics: What to serve.
        address: The address to listen on.
        port: The port, not 0.

    Raises:
        ConfigError: It cannot listen there.
    """

    def __init__(self, metrics: Metrics, address: str, port: int) -> None:
        self.metrics = metrics
        try:
            self._server = _Scrapes((address, port))
        except OSError as error:
            raise ConfigError(
                f"--metrics-port {port}: cannot listen on {address}:{port} ({error.strerror or error}); "
                "choose another port, another --metrics-addr, or 0 for none"
            ) from error
        self._server.set_app(make_wsgi_app(metrics.registry))
        metrics.scrapes_refused = lambda: self._server.turned_away
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="hpresil-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(CLOSE_S)
