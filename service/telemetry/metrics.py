"""What the service counts and times, as Prometheus metrics of one registry.

Knows nothing of requests or models beyond their names. Labels have few values: never a request's own text.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from taxon.service.telemetry.series import Children, QuickHistogram
from taxon.service.telemetry.spread import Distributions, Expected, Observed
from taxon.service.telemetry.statistics import Statistics

STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DISTANCE_BUCKETS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class OnBatch(Protocol):
    """Told of each batch."""

    def __call__(self, size: int, dropped_count: int, bucket: int = 0) -> None:
        """Counts it.

        Args:
            size: Inputs that ran.
            dropped_count: Inputs that were dropped before their run.
            bucket: What it was padded to; 0 if it was not.
        """
        ...


class Metrics:
    """Every metric of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.statistics = Statistics()
        """What the Open Inference Protocol reports; not on the page."""
        self.requests = Counter(
            "taxon_requests",
            "Finished calls of every service, and inputs in the place of calls that have several, by method, model "
            "(empty if none was found) and outcome: OK, CANCELLED, an error reason or a status.",
            ["method", "model", "outcome"],
            registry=self.registry,
        )
        self._requests = Children(self.requests)
        self.version_requests = Counter(
            "taxon_version_requests",
            "Requests that went to each version, by why it was that one (named, default, canary) and what became of "
            "them: answer, error, nan, fatal (to its worker), refused (no room), caller (whose fault), cancelled.",
            ["model", "version", "part", "outcome"],
            registry=self.registry,
        )
        self._version_requests = Children(self.version_requests)
        self.stage_seconds = QuickHistogram(
            "taxon_stage_seconds",
            "Time of answered inputs in each stage: preprocess, queue, inference, total.",
            ["stage"],
            STAGE_BUCKETS_S,
        )
        self.deadline_slack = QuickHistogram(
            "taxon_deadline_slack_seconds",
            "Time that answered inputs had left until their deadline.",
            [],
            STAGE_BUCKETS_S,
        )
        self.registry.register(self.stage_seconds)
        self.registry.register(self.deadline_slack)
        self.batch_size = Histogram(
            "taxon_batch_size",
            "Inputs per model run.",
            ["model", "version"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.padded = Counter(
            "taxon_padded_inputs",
            "Places of model runs that no input filled: a run has one of a few sizes.",
            ["model", "version"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "taxon_dropped_inputs",
            "Queued inputs dropped before a run because nobody waited for them any more.",
            ["model", "version"],
            registry=self.registry,
        )
        self._batch_size = Children(self.batch_size)
        self._padded, self._dropped = Children(self.padded), Children(self.dropped)
        self.observed, self.expected = Observed(), Expected()
        self.registry.register(self.observed)
        self.registry.register(self.expected)
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
        self.explanation_seconds = Histogram(
            "taxon_explanation_seconds",
            "Time of explanations that were given, by how: activation, masking.",
            ["method"],
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.explanation_runs = Counter(
            "taxon_explanation_runs",
            "Runs of models for explanations, also of those that were not finished.",
            ["model", "version"],
            registry=self.registry,
        )
        self._explanation_runs = Children(self.explanation_runs)
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
        self.golden_difference = Gauge(
            "taxon_golden_difference",
            "Largest difference of any golden's score, at the load of a bundle, from what its exporter wrote.",
            ["model", "version"],
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
        self.connections = Gauge(
            "taxon_connections", "Connections to the port of callers, of all fronts.", registry=self.registry
        )
        self.most_connections = Gauge(
            "taxon_most_connections", "Connections that all fronts together take.", registry=self.registry
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

    def count_request(self, method: str, model: str, outcome: str) -> None:
        """Counts one finished call, or one input of a call that has several.

        Args:
            method: One that there is, or empty.
            model: One that is served, or empty: never a name that a caller made up.
            outcome: OK, an error reason, or the name of a status.
        """
        self._requests.of(method, model, outcome).inc()

    def count_version(self, model: str, version: int, part: str, outcome: str) -> None:
        """Counts one request that has found its version."""
        self._version_requests.of(model, version, part, outcome).inc()

    def count_explanation_run(self, model: str, version: int) -> None:
        """Counts one run of a model for an explanation."""
        self._explanation_runs.of(model, version).inc()

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
        for kept in (self._version_requests, self._batch_size, self._padded, self._dropped, self._explanation_runs):
            kept.keep(versions)
        self.stage_seconds.keep(versions)
        self.deadline_slack.keep(versions)
        self.observed.keep(versions)

    def on_batch(self, model: str, version: int) -> OnBatch:
        """Counts the batches of one version of a model, and the inputs that were dropped before a run."""

        def on_batch(size: int, dropped_count: int, bucket: int = 0) -> None:
            if size:
                self._batch_size.of(model, version).observe(size)
                self._padded.of(model, version).inc(max(0, bucket - size))
            if dropped_count:
                self._dropped.of(model, version).inc(dropped_count)

        return on_batch

    def show_models(
        self,
        models: Iterable[tuple[str, int, str, str]],
        speedups: Iterable[tuple[str, int, str, float]],
        golden_differences: Iterable[tuple[str, int, float]],
        distributions: Iterable[tuple[str, int, Distributions]],
        refused_count: int,
    ) -> None:
        """Shows which versions are loaded, each with its variant and execution provider; and of each variant that was
        timed how many times as fast as fp32 it is; how near each bundle's goldens came, and how its validation set is
        spread.
        """
        self.model_info.clear()
        for labels in models:
            self.model_info.labels(*labels).set(1)
        self.variant_speedup.clear()
        for name, version, variant, speedup in speedups:
            self.variant_speedup.labels(name, version, variant).set(speedup)
        self.golden_difference.clear()
        for name, version, difference in golden_differences:
            self.golden_difference.labels(name, version).set(difference)
        self.expected.show(distributions)
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
