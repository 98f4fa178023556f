"""`taxon` without metrics, so that `bench_metrics` can say what they cost: nothing is counted, timed or shown. With one
front, all of them are in the process that this patches.
"""

import sys

from taxon import cli
from taxon.service import pipeline
from taxon.service.telemetry.series import Children, QuickHistogram
from taxon.service.telemetry.spread import Observed
from taxon.service.telemetry.statistics import Statistics


class Nothing:
    """Stands for a metric."""

    def inc(self, amount: float = 1) -> None:
        """Counts nothing."""

    def observe(self, amount: float) -> None:
        """Counts nothing."""


def nothing(*_: object) -> None:
    """Counts nothing."""


if __name__ == "__main__":
    silent = Nothing()
    Children.of = lambda *_: silent  # type: ignore[method-assign,assignment]
    QuickHistogram.observe = Observed.observe = nothing  # type: ignore[method-assign,assignment]
    Statistics.answered = Statistics.failed = Statistics.ran = nothing  # type: ignore[method-assign,assignment]
    pipeline.measures = lambda *_: {}
    sys.exit(cli.main())
