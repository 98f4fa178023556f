"""What the service counts and times, as Prometheus metrics of one registry.

Knows nothing of requests or models beyond their names. Labels have few values: never a request's own text.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from service.statistics import Statistics

STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Every metric of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statistics = Statistics()
        """What the Open Inference Protocol reports; not on the page."""
        self.requests = Counter(
            "taxon_requests",
            "Finished inputs, by method and outcome: OK or an error reason.",
            ["method", "outcome"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "taxon_stage_seconds",
            "Time of answered inputs in each stage: preprocess, queue, inference, total.",
            ["model", "stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "taxon_batch_size", "Inputs per model run.", ["model"], buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.dropped = Counter(
            "taxon_dropped_inputs",
            "Queued inputs dropped before a run because nobody waited for them any more.",
            ["model"],
            registry=self.registry,
        )
        self.in_flight = Gauge("taxon_in_flight_inputs", "Inputs that hold a permit.", registry=self.registry)
        self.model_info = Gauge(
            "taxon_model_info",
            "1 for each loaded model version.",
            ["model", "version", "variant", "execution_provider"],
            registry=self.registry,
        )
        self.refused_bundles = Gauge(
            "taxon_refused_bundles", "Bundles found in the folder but not servable.", registry=self.registry
        )


class MetricsPage:
    """The HTTP page that Prometheus scrapes, on a thread of its own."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        self._server, self._thread = start_http_server(port, registry=metrics.registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stops answering and joins the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
