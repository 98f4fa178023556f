"""What `ModelStatistics` answers, under the names of Triton's metrics: dashboards that were made for Triton go on."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from taxon.service.telemetry.statistics import Figures

COUNTERS: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "nv_inference_request_success": ("Answered requests.", lambda figures: figures.success_count),
    "nv_inference_request_failure": ("Failed requests.", lambda figures: figures.fail_count),
    "nv_inference_count": ("Inputs.", lambda figures: figures.inference_count),
    "nv_inference_exec_count": ("Model runs.", lambda figures: sum(figures.run_counts.values())),
    "nv_inference_request_duration_us": ("Of answered requests, in all.", lambda figures: figures.success_s * 1e6),
    "nv_inference_queue_duration_us": ("Of that, waiting.", lambda figures: figures.queue_s * 1e6),
    "nv_inference_compute_input_duration_us": ("Of that, decoding.", lambda figures: figures.input_s * 1e6),
    "nv_inference_compute_infer_duration_us": ("Of that, running.", lambda figures: figures.infer_s * 1e6),
    "nv_inference_compute_output_duration_us": ("Of that, answering.", lambda figures: figures.output_s * 1e6),
}
"""What each means, and where it comes from."""


class TritonNames(Collector):
    """Shows them at every scrape."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, int, Figures]]]) -> None:
        """Reads nothing yet.

        Args:
            read: The figures of every version that is served, with its model's name; called on the page's thread.
        """
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the page shows."""
        served = list(self._read())
        for name, (documentation, value_of) in COUNTERS.items():
            # Triton's counters do not end in _total, so they are of no type here; Prometheus counts with them the same.
            metric = Metric(name, documentation, "unknown")
            for model, version, figures in served:
                metric.add_sample(name, {"model": model, "version": str(version)}, value_of(figures))
            yield metric
