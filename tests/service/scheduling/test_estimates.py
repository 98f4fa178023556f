import pytest

from taxon.service.scheduling.estimates import FADING_S, MOST_TIMES, NEWEST_WEIGHT, Estimate
from tests.fakes import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def test_what_was_proven_is_believed_before_anything_was_learnt(clock):
    estimate = Estimate(0.010, clock)
    clock.now += 1000
    assert estimate.seconds() == 0.010


def test_samples_move_the_estimate_towards_them(clock):
    estimate = Estimate(0.010, clock)
    estimate.learn(0.020)
    assert estimate.seconds() == pytest.approx(0.011)
    for _ in range(100):
        estimate.learn(0.020)
    assert estimate.seconds() == pytest.approx(0.020, rel=1e-3)


@pytest.mark.parametrize("sample_s", [2.0, 3600.0, float("inf")])
def test_a_stall_counts_for_a_few_times_the_estimate_at_most(clock, sample_s):
    estimate = Estimate(0.010, clock)
    estimate.learn(sample_s)
    assert estimate.seconds() == pytest.approx(0.010 * (1 + NEWEST_WEIGHT * (MOST_TIMES - 1)))


@pytest.mark.parametrize("sample_s", [0.0, 1e-9])
def test_nothing_at_all_counts_for_a_fraction_of_the_estimate_at_least(clock, sample_s):
    estimate = Estimate(0.010, clock)
    estimate.learn(sample_s)
    assert estimate.seconds() == pytest.approx(0.010 * (1 - NEWEST_WEIGHT * (1 - 1 / MOST_TIMES)))


def test_without_samples_what_was_learnt_fades_to_what_was_proven(clock):
    estimate = Estimate(0.010, clock)
    for _ in range(200):
        estimate.learn(1.0)
    learnt_s = estimate.seconds()
    assert learnt_s > 0.9
    clock.now += FADING_S
    assert estimate.seconds() == pytest.approx(0.010 + (learnt_s - 0.010) / 2.718281828)
    clock.now += 20 * FADING_S
    assert estimate.seconds() == pytest.approx(0.010)


def test_what_goes_on_being_slow_does_not_fade(clock):
    estimate = Estimate(0.010, clock)
    for _ in range(1000):
        clock.now += 0.1
        estimate.learn(0.050)
    assert estimate.seconds() > 0.045


def test_where_nothing_was_proven_the_first_sample_is_believed(clock):
    estimate = Estimate(0.0, clock)
    assert estimate.seconds() == 0.0
    estimate.learn(0.005)
    assert estimate.seconds() == 0.005
    clock.now += 1000
    assert estimate.seconds() == pytest.approx(0.005)


def test_a_first_sample_that_was_a_stall_is_not_believed_for_ever(clock):
    estimate = Estimate(0.0, clock)
    estimate.learn(2.0)
    estimate.learn(0.005)
    clock.now += 20 * FADING_S
    assert estimate.seconds() == pytest.approx(0.005)


def test_no_sample_moves_what_was_measured_at_load(clock):
    estimate = Estimate(0.010, clock)
    estimate.learn(0.005)
    assert estimate.proven_s == 0.010
