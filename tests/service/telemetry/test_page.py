"""The page that Prometheus scrapes."""

import socket
import ssl
import time
from threading import Event
from urllib.request import urlopen

from prometheus_client import CollectorRegistry

from taxon.service.telemetry.metrics import Metrics
from taxon.service.telemetry.page import MetricsPage
from tests.certificates import Authority


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


def test_nothing_is_said_of_a_client_that_breaks_tls_off_before_its_answer(tmp_path, capfd):
    class Waiting:
        """What takes longer to collect than Prometheus waits."""

        def collect(self):
            asked.set()
            assert left.wait(10)
            return []

    authority, asked, left = Authority(tmp_path), Event(), Event()
    left.set()  # a registry collects what it is given
    made, registry = authority.sign("localhost"), CollectorRegistry()
    registry.register(Waiting())
    asked.clear()
    left.clear()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.cert, made.key)
    page = MetricsPage(registry, "127.0.0.1", 0, tls)
    context = ssl.create_default_context(cafile=authority.cert)
    with socket.create_connection(("127.0.0.1", page.port)) as plain:
        client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.wait(10)
        client.close()
    left.set()
    page.close()
    assert capfd.readouterr().err == ""
