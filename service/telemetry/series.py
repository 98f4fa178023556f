"""Prometheus metrics that cost less at every call than its own, and forget versions that are served no more."""

from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import Counter, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

M = TypeVar("M", Counter, Histogram)


class QuickHistogram(Collector):
    """A histogram. Prometheus' own takes 2 µs for each of a call's stages, a few percent of what the front does for a
    call; this one a tenth of that. Model and version are its first labels.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        """Counts nothing yet.

        Args:
            name: Of the metric.
            documentation: The same.
            labels: After model and version.
            buckets: Upper edges, ascending.
        """
        self._about = name, documentation
        self._labels = ["model", "version", *labels]
        self._buckets = buckets
        self._counts: dict[tuple[str | int, ...], list[int]] = {}
        self._sums: dict[tuple[str | int, ...], float] = {}

    def observe(self, value: float, *labels: str | int) -> None:
        """Counts one value. Must be called on one thread."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(self._buckets, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the page shows. Any thread may call it."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        edges = [*map(floatToGoString, self._buckets), "+Inf"]
        for key, counts in list(self._counts.items()):
            family.add_metric(
                [*map(str, key)], list(zip(edges, accumulate(counts), strict=True)), self._sums.get(key, 0.0)
            )
        yield family

    def keep(self, versions: Container[tuple[str, int]]) -> None:
        """Drops what is known of all other versions."""
        for key in [key for key in self._counts if key[:2] not in versions]:
            del self._counts[key], self._sums[key]


class Children(Generic[M]):
    """The children of a metric, at hand: Prometheus' own way to one takes 1 µs."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str | int, ...], M] = {}

    def of(self, *labels: str | int) -> M:
        """The one with these labels."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child

    def keep(self, versions: Container[tuple[str, int]]) -> None:
        """Drops those of all other versions; model and version must be the first labels."""
        for labels in [labels for labels in self._children if labels[:2] not in versions]:
            del self._children[labels]
            self._metric.remove(*labels)
