"""What the service counts and times, as Prometheus metrics of one registry.

Knows nothing of requests or models beyond their names. Labels have few values: never a request's own text.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from taxon.service.telemetry.statistics import Statistics

STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DISTANCE_BUCKETS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class StageSeconds(Collector):
    """How long answered inputs spent in each stage, as one histogram. Prometheus' own takes 2 µs for each of a call's
    stages, a few percent of what the front does for a call; this one a tenth of that.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, str], list[int]] = {}
        self._sums: dict[tuple[str, int, str], float] = {}

    def observe(self, model: str, version: int, stages: Iterable[tuple[str, float]]) -> None:
        """Counts one input. Must be called on one thread."""
        for stage, seconds in stages:
            key = model, version, stage
            counts = self._counts.get(key)
            if counts is None:
                counts = self._counts[key] = [0] * (len(STAGE_BUCKETS_S) + 1)
                self._sums[key] = 0.0
            counts[bisect_left(STAGE_BUCKETS_S, seconds)] += 1
            self._sums[key] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the page shows. Any thread may call it."""
        family = HistogramMetricFamily(
            "taxon_stage_seconds",
            "Time of answered inputs in each stage: preprocess, queue, inference, total.",
            labels=["model", "version", "stage"],
        )
        edges = [*map(floatToGoString, STAGE_BUCKETS_S), "+Inf"]
        for key, counts in list(self._counts.items()):
            family.add_metric(
                [*map(str, key)], list(zip(edges, accumulate(counts), strict=True)), self._sums.get(key, 0.0)
            )
        yield family

    def keep(self, versions: Container[tuple[str, int]]) -> None:
        """Drops what is known of all other versions."""
        for key in [key for key in self._counts if key[:2] not in versions]:
            del self._counts[key], self._sums[key]


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
        self.version_requests = Counter(
            "taxon_version_requests",
            "Requests that went to each version, by why it was that one (named, default, canary) and what became of "
            "them: answer, error, nan, fatal (to its worker), refused (no room), caller (whose fault), cancelled.",
            ["model", "version", "part", "outcome"],
            registry=self.registry,
        )
        self._version_requests: dict[tuple[str, int, str, str], Counter] = {}
        self.stage_seconds = StageSeconds()
        self.registry.register(self.stage_seconds)
        self.batch_size = Histogram(
            "taxon_batch_size", "Inputs per model run.", ["model"], buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.dropped = Counter(
            "taxon_dropped_inputs",
            "Queued inputs dropped before a run because nobody waited for them any more.",
            ["model"],
            registry=self.registry,
        )
        self.refused_calls = Counter(
            "taxon_refused_calls",
            "Calls that were not let in, by reason and by caller where one is known.",
            ["reason", "caller"],
            registry=self.registry,
        )
        self.captures = Counter(
            "taxon_feedback_captures",
            "Answered pictures that a rule would keep, by what became of them: kept, known (the same picture was), "
            "shed (the server was busy), failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.in_flight = Gauge("taxon_in_flight_inputs", "Inputs that hold a permit.", registry=self.registry)
        self.model_info = Gauge(
            "taxon_model_info",
            "1 for each loaded model version.",
            ["model", "version", "variant", "execution_provider"],
            registry=self.registry,
        )
        self.variant_speedup = Gauge(
            "taxon_variant_speedup",
            "How many times as fast as fp32 each timed variant of a loaded model version is on this machine.",
            ["model", "version", "variant"],
            registry=self.registry,
        )
        self.refused_bundles = Gauge(
            "taxon_refused_bundles", "Bundles found in the folder but not servable.", registry=self.registry
        )
        self.version_state = Gauge(
            "taxon_version_state",
            "1 for each version in the folder, in its present state.",
            ["model", "version", "state"],
            registry=self.registry,
        )
        self.default_version = Gauge(
            "taxon_default_version",
            "The version that answers calls which name none.",
            ["model"],
            registry=self.registry,
        )
        self.label_version = Gauge(
            "taxon_label_version", "The version that a label names.", ["model", "label"], registry=self.registry
        )
        self.traffic_trial = Gauge(
            "taxon_traffic_trial",
            "The share of calls without a version that a canary or shadow is declared for, by what has become of it: "
            "RUNNING, LOADING, NOT_SERVED, ROLLED_BACK.",
            ["model", "version", "role", "state"],
            registry=self.registry,
        )
        self.rollbacks = Counter(
            "taxon_canary_rollbacks", "Canaries that were rolled back.", ["model", "version"], registry=self.registry
        )
        self.shadow_inputs = Counter(
            "taxon_shadow_inputs",
            "Copies of inputs for the shadow, by what became of them: same (top label as the default's), other, error, "
            "nan, fatal (to its worker), unfit (it takes other inputs), shed (no worker was idle).",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self.shadow_distance = Histogram(
            "taxon_shadow_score_distance",
            "Largest difference of any label's score between shadow and default, on one input.",
            ["model", "version"],
            buckets=DISTANCE_BUCKETS,
            registry=self.registry,
        )
        self.shadow_seconds = Histogram(
            "taxon_shadow_seconds",
            "Time of decoding and running one input, by shadow and by default.",
            ["model", "version", "by"],
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.serving = Gauge("taxon_serving", "1 while health says SERVING.", registry=self.registry)
        self.queued = Gauge("taxon_queued_inputs", "Inputs that wait for a worker.", registry=self.registry)
        self.workers = Gauge("taxon_workers", "Workers that have a model to run.", registry=self.registry)
        self.restarts = Gauge(
            "taxon_worker_restarts", "Workers that had to be replaced since the start.", registry=self.registry
        )
        self.certificate_expiry = Gauge(
            "taxon_certificate_expiry_timestamp_seconds",
            "When the certificate ends that new connections are shown, in seconds since 1970.",
            ["certificate"],  # so that there is none without TLS
            registry=self.registry,
        )
        self.memory = Gauge(
            "taxon_memory_bytes",
            "Memory that belongs to processes alone, without inputs, by what they do.",
            ["process"],
            registry=self.registry,
        )

    def count_version(self, model: str, version: int, part: str, outcome: str) -> None:
        """Counts one request that has found its version."""
        key = model, version, part, outcome
        counter = self._version_requests.get(key)
        if counter is None:
            counter = self._version_requests[key] = self.version_requests.labels(*key)
        counter.inc()

    def count_rollback(self, model: str, version: int) -> None:
        """Counts a canary that was rolled back."""
        self.rollbacks.labels(model, version).inc()

    def show_shadow(self, model: str, version: int, distance: float, seconds: float, usual_seconds: float) -> None:
        """Counts one input that both shadow and default have answered."""
        self.shadow_distance.labels(model, version).observe(distance)
        for by, spent in (("shadow", seconds), ("default", usual_seconds)):
            self.shadow_seconds.labels(model, version, by).observe(spent)

    def keep_versions(self, versions: Container[tuple[str, int]]) -> None:
        """Drops what was counted of versions that are served no more: without that the page would grow for ever."""
        for key in [key for key in self._version_requests if key[:2] not in versions]:
            del self._version_requests[key]
            self.version_requests.remove(*key)
        self.stage_seconds.keep(versions)

    def on_batch(self, model: str) -> Callable[[int, int], None]:
        """Counts the batches of one model, and the inputs that were dropped before a run."""
        batch_size, dropped = self.batch_size.labels(model), self.dropped.labels(model)

        def on_batch(size: int, dropped_count: int) -> None:
            if size:
                batch_size.observe(size)
            if dropped_count:
                dropped.inc(dropped_count)

        return on_batch

    def show_models(
        self,
        models: Iterable[tuple[str, int, str, str]],
        speedups: Iterable[tuple[str, int, str, float]],
        refused_count: int,
    ) -> None:
        """Shows which versions are loaded, each with its variant and execution provider; and of each variant that was
        timed how many times as fast as fp32 it is.
        """
        self.model_info.clear()
        for labels in models:
            self.model_info.labels(*labels).set(1)
        self.variant_speedup.clear()
        for name, version, variant, speedup in speedups:
            self.variant_speedup.labels(name, version, variant).set(speedup)
        self.refused_bundles.set(refused_count)

    def show_versions(
        self,
        states: Iterable[tuple[str, int, str]],
        defaults: Mapping[str, int],
        labels: Mapping[str, Mapping[str, int]],
        trials: Iterable[tuple[str, int, str, str, float]],
    ) -> None:
        """Shows what the folder has: the state of every version, each model's default, what its labels name, and which
        versions are on trial.
        """
        for gauge in (self.version_state, self.default_version, self.label_version, self.traffic_trial):
            gauge.clear()
        for state in states:
            self.version_state.labels(*state).set(1)
        for *trial, share in trials:
            self.traffic_trial.labels(*trial).set(share)
        for model, version in defaults.items():
            self.default_version.labels(model).set(version)
        for model, named in labels.items():
            for label, version in named.items():
                self.label_version.labels(model, label).set(version)
