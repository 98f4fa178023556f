"""Figures of models."""

from taxon.service.telemetry.statistics import Figures, Spent, Statistics

KEY = ("colors", 1)


def test_counts_requests_inputs_and_runs():
    statistics = Statistics(clock_ms=lambda: 42)
    statistics.answered(KEY, 3, Spent(1.0, 0.1, 0.2, 0.3, 0.05))
    for _ in range(3):
        statistics.ran(KEY, 3, 0.3)
    statistics.failed(KEY, 0.5)
    figures = statistics.of(KEY)
    assert (figures.success_count, figures.fail_count, figures.inference_count) == (1, 1, 3)
    assert round(figures.run_counts[3], 9) == 1
    assert round(figures.run_s[3], 9) == 0.3
    assert figures.last_ms == 42
    statistics.forget(KEY)
    assert statistics.of(KEY) == Figures()
