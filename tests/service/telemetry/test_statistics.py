"""Figures of models."""

from taxon.service.telemetry.statistics import Figures, Statistics, added

KEY = 1


def test_counts_requests_inputs_and_runs():
    statistics = Statistics(clock_ms=lambda: 42)
    statistics.answered(KEY, 3, 1.0, 0.1, 0.2, 0.3, 0.05)
    for _ in range(3):
        statistics.ran(KEY, 3, 0.3)
    statistics.failed(KEY, 0.5)
    figures = statistics.all[KEY]
    assert (figures.success_count, figures.fail_count, figures.inference_count) == (1, 1, 3)
    assert round(figures.run_counts[3], 9) == 1
    assert round(figures.run_s[3], 9) == 0.3
    assert figures.last_ms == 42
    statistics.keep({KEY})
    assert statistics.all[KEY] == figures
    statistics.keep({2})
    assert statistics.all[KEY] == Figures()


def test_the_figures_of_several_fronts_add_up():
    first, second = Statistics(clock_ms=lambda: 42), Statistics(clock_ms=lambda: 43)
    for statistics in (first, second):
        statistics.answered(KEY, 2, 1.0, 0.1, 0.2, 0.3, 0.05)
        statistics.ran(KEY, 2, 0.3)
    whole = added([first.all, second.all])[KEY]
    assert (whole.success_count, whole.inference_count, whole.success_s, whole.last_ms) == (2, 4, 2.0, 43)
    assert (whole.run_counts, whole.run_s) == ({2: 1.0}, {2: 0.3})
