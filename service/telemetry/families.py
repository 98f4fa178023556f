"""The metrics of several processes as one page: what each counts is added up."""

import operator
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Added(Collector):
    """The sum of several processes' metrics. The time at which something began is the earliest."""

    def __init__(self, read: Callable[[], Iterable[Iterable[Metric]]]) -> None:
        """Reads nothing yet.

        Args:
            read: Every process's metrics; called on the page's thread.
        """
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the page shows."""
        metrics: dict[str, Metric] = {}
        values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for theirs in self._read():
            for metric in theirs:
                metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    key = metric.name, sample.name, tuple(sample.labels.items())
                    add = min if sample.name.endswith("_created") else operator.add
                    values[key] = add(values[key], sample.value) if key in values else sample.value
        for (metric_name, name, pairs), value in values.items():
            metrics[metric_name].add_sample(name, dict(pairs), value)
        yield from metrics.values()
