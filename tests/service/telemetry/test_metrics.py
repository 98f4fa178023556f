import socket
import time
from urllib.request import urlopen

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from taxon.service.telemetry.metrics import STAGE_BUCKETS_S, Metrics, MetricsPage


def test_stage_seconds_read_like_a_histogram_of_prometheus_own():
    seconds = [0.0, 0.001, 0.0011, 0.05, 7.0, 10.0, 11.0]
    metrics, registry = Metrics(), CollectorRegistry()
    usual = Histogram(
        "taxon_stage_seconds",
        "Time of answered inputs in each stage: preprocess, queue, inference, total.",
        ["model", "stage"],
        buckets=STAGE_BUCKETS_S,
        registry=registry,
    )
    for second in seconds:
        metrics.stage_seconds.observe("m", [("queue", second), ("total", second * 2)])
        usual.labels("m", "queue").observe(second)
        usual.labels("m", "total").observe(second * 2)

    def lines(page):
        return {line for line in page.decode().splitlines() if "stage_seconds" in line and "_created" not in line}

    assert lines(generate_latest(metrics.registry)) == lines(generate_latest(registry))


def test_the_page_does_not_spin_while_no_descriptor_is_left(monkeypatch):
    metrics, tries = Metrics(), []
    page = MetricsPage(metrics.registry, 0)

    class Refusing:
        def accept(self):
            tries.append(time.monotonic())
            raise OSError(24, "Too many open files")

        def fileno(self):
            return kept.fileno()

    kept = page._server.socket
    with monkeypatch.context() as patch:
        patch.setattr(page._server, "socket", Refusing())
        with socket.create_connection(("127.0.0.1", page.port)):
            time.sleep(0.3)
        assert 1 <= len(tries) < 4
    with urlopen(f"http://127.0.0.1:{page.port}/metrics") as reply:
        assert b"taxon_in_flight_inputs" in reply.read()
    page.close()
