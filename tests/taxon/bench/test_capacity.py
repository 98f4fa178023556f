"""The search for the rate, on made-up servers."""

import pytest

from taxon.bench.capacity import RESOLUTION, Probe, capacity


def server(limit: float):
    def probe(rate: float) -> Probe:
        return Probe(rate, rate * 1.01, 1.0 if rate <= limit else 0.8, 10.0 if rate <= limit else 200.0)

    return probe


@pytest.mark.parametrize("limit", [15.0, 100.0, 333.0, 701.0, 990.0])
def test_finds_the_rate_from_below(limit):
    found = capacity(1000.0, server(limit))
    assert limit - RESOLUTION * 1000 <= found.rate / 1.01 <= limit
    assert found.p99_ms == (10.0 if found.rate else None)


def test_a_promise_that_cannot_be_kept():
    assert capacity(1000.0, server(-1.0)).rate == 0.0


def test_one_disturbed_measurement_costs_nothing():
    seen = []

    def disturbed(rate: float) -> Probe:
        seen.append(rate)
        return Probe(rate, rate, 0.5, 500.0) if len(seen) == 1 else server(900.0)(rate)

    assert capacity(1000.0, disturbed).rate > 850.0


def test_a_server_that_answers_nothing_is_not_asked():
    assert capacity(0.0, server(1.0)).probes == []
