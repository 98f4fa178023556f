"""How inputs and answers are spread over the bins of their bundle: counted here, set beside validation by Prometheus,
which has every server's counts and the window that its user wants.
"""

from collections.abc import Container, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from taxon.bundle.distributions import bin_of
from taxon.bundle.manifest import Distribution, Measure

LABELS = ("model", "version", "measure", "bin")
Distributions = Mapping[Measure, Distribution]


class Observed(Collector):
    """What was served, by bin. The first count of a version shows all bins, so that an empty one is a zero."""

    _labels = LABELS

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], tuple[Distributions, dict[Measure, list[int]]]] = {}

    def observe(self, model: str, version: int, distributions: Distributions, values: Mapping[Measure, float]) -> None:
        """Counts one answered input. Must be called on one thread.

        Args:
            model: Its name.
            version: Of the model.
            distributions: Of its manifest; one with other bins, after the version was loaded anew, begins at 0.
            values: By measure; those that the manifest does not know are left out.
        """
        known, counts = self._counts.get((model, version), (None, {}))
        if known is not distributions:  # mostly it is: comparing takes longer
            if known != distributions:
                counts = {measure: [0] * len(one.counts) for measure, one in distributions.items()}
            self._counts[model, version] = distributions, counts
        for measure, value in values.items():
            if measure in counts:
                counts[measure][bin_of(distributions[measure].edges, value)] += 1

    def keep(self, versions: Container[tuple[str, int]]) -> None:
        """Drops what is known of all other versions."""
        for key in [key for key in self._counts if key not in versions]:
            del self._counts[key]

    def collect(self) -> Iterator[Metric]:
        """What the page shows. Any thread may call it."""
        family = CounterMetricFamily(
            "taxon_observed_inputs",
            "Answered inputs by measure (score, familiarity, brightness, side) and bin, named by its lower edge.",
            labels=LABELS,
        )
        for (model, version), (distributions, counts) in list(self._counts.items()):
            for measure, found in counts.items():
                for edge, count in zip(_bins(distributions[measure]), found, strict=True):
                    family.add_metric([model, str(version), measure, edge], count)
        yield family


class Expected(Collector):
    """What validation had, by bin, of every version that is loaded."""

    _labels = LABELS

    def __init__(self) -> None:
        self._shown: list[tuple[str, int, Distributions]] = []

    def show(self, models: Iterable[tuple[str, int, Distributions]]) -> None:
        """Shows these from now on."""
        self._shown = list(models)

    def collect(self) -> Iterator[Metric]:
        """What the page shows. Any thread may call it."""
        family = GaugeMetricFamily(
            "taxon_validation_inputs",
            "Inputs of the validation set by measure and bin, as in taxon_observed_inputs.",
            labels=LABELS,
        )
        for model, version, distributions in self._shown:
            for measure, one in distributions.items():
                for edge, count in zip(_bins(one), one.counts, strict=True):
                    family.add_metric([model, str(version), measure, edge], count)
        yield family


def _bins(one: Distribution) -> list[str]:
    return ["-Inf", *map(floatToGoString, one.edges)]
