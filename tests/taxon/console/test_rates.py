"""Rates are differences of counters."""

import pytest

from taxon.console.rates import SPAN_S, Rates
from taxon.inference.open_inference_service_pb2 import InferStatistics, ModelStatistics, StatisticDuration


def counted(answers: int, *, failures: int = 0, runs: int = 0, seconds: float = 0.0) -> list[ModelStatistics]:
    stats = InferStatistics(
        success=StatisticDuration(count=answers, ns=int(seconds * 1e9)), fail=StatisticDuration(count=failures)
    )
    return [
        ModelStatistics(name="pets", version="1", inference_count=answers, execution_count=runs, inference_stats=stats)
    ]


def test_rates_need_two_looks():
    rates = Rates()
    (first,), span = rates.look(100.0, counted(10, runs=10, seconds=1.0))
    assert (first.answered, first.answers_per_s, span) == (10, None, 0.0)
    (rate,), span = rates.look(104.0, counted(30, failures=2, runs=15, seconds=2.0))
    assert span == 4.0
    assert rate.answers_per_s == 5.0
    assert rate.failures_per_s == 0.5
    assert rate.mean_ms == pytest.approx(50.0)
    assert rate.mean_batch == 4.0


def test_what_is_long_ago_counts_no_more():
    rates = Rates()
    for look in range(20):
        (rate,), span = rates.look(10.0 * look, counted(min(look, 10) * 100))
    assert span == SPAN_S
    assert rate.answers_per_s == 0.0
    assert rate.mean_ms is None


def test_a_server_that_was_started_anew_is_looked_at_anew():
    rates = Rates()
    rates.look(0.0, counted(1000))
    (rate,), span = rates.look(5.0, counted(3))
    assert (rate.answers_per_s, span) == (None, 0.0)
    (rate,), _ = rates.look(6.0, counted(7))
    assert rate.answers_per_s == 4.0


def test_a_version_that_comes_meanwhile_counts_from_nothing():
    rates = Rates()
    rates.look(0.0, [])
    (rate,), _ = rates.look(2.0, counted(8))
    assert rate.answers_per_s == 4.0
