"""Figures of made-up runs."""

import pytest

from taxon.bench.figures import counted, figures, quantile, within
from taxon.bench.load import Outcome, Plan


def outcome(plan: Plan, *calls: tuple[float, float, int]) -> Outcome:
    made = Outcome(plan)
    for due_s, latency_s, status in calls:
        made.due_s.append(due_s)
        made.latency_s.append(latency_s)
        made.status.append(status)
        made.lag_s.append(0.001)
    return made


def test_open_loops_count_what_was_due_in_time_and_closed_ones_what_ended_in_it():
    calls = [(0.9, 0.2, 0), (1.0, 0.1, 0), (2.95, 0.2, 0), (3.1, 0.1, 0)]
    assert counted(outcome(Plan(2.0, 1.0, rate=1.0), *calls)) == [(0.1, 0), (0.2, 0)]
    assert counted(outcome(Plan(2.0, 1.0, callers=1), *calls)) == [(0.2, 0), (0.1, 0)]


def test_failed_calls_are_not_answered_in_time_however_fast():
    seen = outcome(Plan(1.0, 0.0, rate=1.0), (0.1, 0.01, 0), (0.2, 0.001, 8), (0.3, 0.2, 0), (0.4, 0.01, 0))
    assert within(seen, 0.05) == 0.5
    assert within(outcome(Plan(1.0, 0.0, rate=1.0)), 0.05) == 1.0


def test_rates_and_statuses():
    seen = outcome(Plan(2.0, 0.0, rate=1.0, deadline_s=0.5), (0.1, 0.1, 0), (0.2, 0.7, 0), (0.3, 0.02, 8), (1, 0.5, 4))
    told = figures(seen)
    assert (told["offered_per_s"], told["answered_per_s"], told["good_per_s"]) == (2.0, 1.0, 0.5)
    assert told["statuses"] == {"OK": 2, "DEADLINE_EXCEEDED": 1, "RESOURCE_EXHAUSTED": 1}
    assert (told["refused_per_s"], told["refused_p50_ms"], told["max_ms"]) == (1.0, 20.0, 700.0)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)])
def test_quantiles_are_nearest_ranks(share, expected):
    assert quantile([number / 1e3 for number in range(1, 101)], share) == expected


def test_of_nothing_there_are_no_quantiles():
    assert quantile([], 0.5) is None
