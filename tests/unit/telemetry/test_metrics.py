import re
import socket
import threading
import time
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, sampled_from

import told_job
from hpresil.base.errors import ConfigError
from hpresil.launch.scrapes import Scrapes
from hpresil.telemetry import metrics as metrics_module
from hpresil.telemetry.goodput import CATEGORIES, goodput
from hpresil.telemetry.metrics import PHASES, STATES, Metrics, MetricsServer

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def observed(count=None):
    metrics = Metrics(clock=lambda: 0.0)  # the time is that of the newest event
    for event in told_job.events()[:count]:
        metrics.observe(event)
    return metrics


def values(metrics):
    """Return every sample by name and labels, as a scrape sees them."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = ",".join(value for key, value in sorted(sample.labels.items()) if key != "le")
            if not sample.name.endswith("_bucket"):
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_every_exported_name_is_on_the_page_and_vice_versa():
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in observed().registry.collect()
    }
    rows = re.findall(r"^\| `(hpresil_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == exported
    assert len(rows) == len(exported)


def test_every_label_value_is_on_the_page():
    text = PAGE.read_text()
    row = {name: line for line in text.splitlines() for name in re.findall(r"^\| `(\w+)`", line)}
    for name, known in (
        ("hpresil_workers", STATES),
        ("hpresil_recovery_seconds", PHASES),
        ("hpresil_goodput_seconds", CATEGORIES),
        ("hpresil_moved_bytes_total", ("sealed", "restored")),
        ("hpresil_faults_total", ("killed", "exited", "hung", "ended")),
    ):
        listed = row[name].split(": ")[1].split(" |")[0].split(", ")
        assert set(listed) == set(known), name


def test_a_job_is_told_by_its_events():
    found = values(observed())
    assert found["hpresil_generation"] == 3
    assert found["hpresil_step"] == 17
    assert found["hpresil_faults_total{killed}"] == 1
    assert found["hpresil_moved_bytes_total{sealed}"] == 4096
    assert found["hpresil_moved_bytes_total{restored}"] == 4000
    assert found["hpresil_step_seconds_count"] == 17
    assert found["hpresil_recovery_seconds_count{total}"] == 2
    assert found["hpresil_recovery_seconds_sum{restore}"] == pytest.approx(0.03)
    assert found["hpresil_recovery_seconds_sum{detect}"] == pytest.approx(0.06)


def test_workers_move_from_starting_to_spare_to_member_and_away():
    events = told_job.events()

    def states(after):
        index = max(i for i, event in enumerate(events) if after(event))
        found = values(observed(index + 1))
        return [found[f"hpresil_workers{{{state}}}"] for state in STATES]

    assert states(lambda e: e["event"] == "WorkerStarted" and e["worker"] == 2) == [3, 0, 0]
    assert states(lambda e: e["event"] == "ViewInstalled" and e["generation"] == 1) == [1, 0, 2]
    assert states(lambda e: e["event"] == "WorkerReady" and e["worker"] == 2) == [0, 1, 2]
    assert states(lambda e: e["event"] == "WorkerLost") == [0, 1, 1]
    assert states(lambda e: e["event"] == "ViewInstalled" and e["generation"] == 2) == [0, 0, 2]
    assert states(lambda e: e["event"] == "ViewInstalled" and e["generation"] == 3) == [0, 0, 3]
    assert states(lambda e: e["event"] == "WorkerLeft") == [0, 0, 0]


def test_before_the_first_event_nothing_is_claimed():
    found = values(Metrics())
    assert found["hpresil_step"] == -1
    assert sum(found[f"hpresil_goodput_seconds{{{name}}}"] for name in CATEGORIES) == 0


def test_goodput_is_that_of_the_report_with_waits_for_data_added_up_by_worker():
    metrics = observed()
    for worker, seconds in ((0, 0.02), (1, 0.01), (0, 0.03)):
        metrics.data_waited(worker, 9, seconds)
    expected = goodput(told_job.events(), data_waits={9: 0.05})
    found = values(metrics)
    for name in CATEGORIES:
        assert found[f"hpresil_goodput_seconds{{{name}}}"] == pytest.approx(expected[name]), name


def test_refusals_are_looked_up_at_each_scrape():
    metrics = Metrics()
    counts = {"invalid frame": 2}
    metrics.refused = lambda: counts
    assert values(metrics)["hpresil_refused_messages_total{invalid frame}"] == 2
    counts["invalid frame"] = 5
    assert values(metrics)["hpresil_refused_messages_total{invalid frame}"] == 5


def test_they_are_served_over_http_on_the_loopback_address_and_no_longer_after_the_end():
    port = free_port()
    scrapes = Scrapes("127.0.0.1", port)
    scrapes.open()
    with closing(scrapes):
        metrics = scrapes.metrics
        assert metrics is not None
        for event in told_job.events():
            metrics.observe(event)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert "\nhpresil_generation 3.0\n" in text
    assert "_created" not in text
    assert not [t for t in threading.enumerate() if t.name == "hpresil-metrics"]
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_without_a_port_nothing_is_served():
    with closing(Scrapes("127.0.0.1", 0)) as scrapes:
        scrapes.open()
        assert scrapes.metrics is None


def test_a_port_in_use_is_a_clear_error():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--metrics-port {port}: cannot listen on .*another port"):
            MetricsServer(Metrics(), "127.0.0.1", port)


def test_an_address_that_is_not_ours_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid"):
        MetricsServer(Metrics(), "no.such.host.invalid", free_port())


def said(port, raw, *, wait=True):
    """Send bytes as they are; return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            sock.sendall(raw)
            if wait:
                sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(1 << 16), b""))
        except OSError:
            return b""


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


@contextmanager
def served(port):
    with closing(Scrapes("127.0.0.1", port)) as scrapes:
        scrapes.open()
        yield scrapes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=binary(max_size=2048), begin=sampled_from([b"", b"GET ", b"GET /metrics HTTP/1.1\r\n", b"\x16\x03"])
)
def test_whatever_bytes_come_metrics_are_served_and_nothing_is_printed(capfd, raw, begin):
    port = free_port()
    with served(port):
        said(port, begin + raw)
        assert "hpresil_step" in scraped(port)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000,
        b"\x00" * (1 << 20),
        b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_oversized_requests_are_cut_off(raw, capfd):
    port = free_port()
    with served(port):
        said(port, raw)
        assert "hpresil_step" in scraped(port)
    assert "Traceback" not in capfd.readouterr().err


def test_silent_connections_are_few_end_soon_and_are_counted(monkeypatch):
    monkeypatch.setattr(metrics_module._Scrape, "timeout", 0.5)
    port = free_port()
    with served(port):
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(50)]
        wait_until(lambda: sum(is_closed(sock) for sock in silent) == len(silent))
        counted = re.search(r'refused_messages_total\{kind="scrape"\} (\S+)', scraped(port))
        assert counted is not None
        assert float(counted[1]) >= 50 - metrics_module.MAX_SCRAPES
        assert len([t for t in threading.enumerate() if "process_request" in t.name]) <= 2
        for sock in silent:
            sock.close()


def is_closed(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def wait_until(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
