"""The page that Prometheus scrapes."""

import socket
import time
from urllib.request import urlopen

from taxon.service.telemetry.metrics import Metrics
from taxon.service.telemetry.page import MetricsPage


def test_the_page_does_not_spin_while_no_descriptor_is_left(monkeypatch):
    metrics, tries = Metrics(), []
    page = MetricsPage(metrics.registry, "127.0.0.1", 0)

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
