"""Metric families of several processes as one page: what each counts is added up."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Family(NamedTuple):
    """One metric of one process, as plain values."""

    name: str
    kind: str
    documentation: str
    samples: list[tuple[str, dict[str, str], float]]


def read_families(registry: CollectorRegistry) -> list[Family]:
    """Everything in a registry."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


class Added(Collector):
    """The sum of several processes' families. The time at which something began is the earliest."""

    def __init__(self, read: Callable[[], Iterable[Sequence[Family]]]) -> None:
        """Reads nothing yet.

        Args:
            read: Every process's families; called on the page's thread.
        """
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the page shows."""
        metrics: dict[str, Metric] = {}
        values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for families in self._read():
            for family in families:
                if family.name not in metrics:
                    metrics[family.name] = Metric(family.name, family.documentation, family.kind)
                for name, labels, value in family.samples:
                    key = family.name, name, tuple(labels.items())
                    before = values.get(key)
                    if before is None:
                        values[key] = value
                    else:
                        values[key] = min(before, value) if name.endswith("_created") else before + value
        for (family_name, name, pairs), value in values.items():
            metrics[family_name].add_sample(name, dict(pairs), value)
        yield from metrics.values()
