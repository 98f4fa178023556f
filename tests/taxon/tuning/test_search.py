"""The search on made-up machines."""

import random

import pytest

from taxon.tuning.search import Measured, search
from taxon.tuning.settings import Tried

DEFAULT = Tried()
OTHERS = [Tried(fronts=2), Tried(max_batch_size=4), Tried(max_batch_size=16), Tried(workers=1)]


def machine(rate, noise=0.0, seed=0):
    """Measures what `rate` says of a candidate, more or less; notes what was measured."""
    dice, seen = random.Random(seed), []

    def measure(tried, stage, precise):
        seen.append((stage, tried, precise))
        measured = rate(tried) * (1 + dice.uniform(-noise, noise))
        return Measured(tried, stage, measured, measured * 1.1, 20.0)

    return measure, seen


def test_finds_two_changes_that_are_better_together():
    def rate(tried):
        return 200.0 * (1.1 if tried.fronts == 2 else 1.0) * (1.1 if tried.max_batch_size == 16 else 0.9)

    found = search(DEFAULT, OTHERS, machine(rate)[0])
    assert found.chosen == Tried(fronts=2, max_batch_size=16)
    assert found.gain == pytest.approx(1.21 / 0.9)
    assert found.rate == pytest.approx(242.0)


@pytest.mark.parametrize("gain", [1.0, 1.02])
def test_what_is_no_better_than_the_resolution_changes_nothing(gain):
    found = search(DEFAULT, OTHERS, machine(lambda tried: 200.0 * (gain if tried.fronts else 1.0))[0])
    assert (found.chosen, found.gain) == (DEFAULT, 1.0)


def test_noise_is_not_taken_for_a_gain():
    chosen = [search(DEFAULT, OTHERS, machine(lambda _: 200.0, noise=0.02, seed=seed)[0]).chosen for seed in range(100)]
    assert chosen.count(DEFAULT) > 95


def test_the_default_is_in_every_round_but_of_the_prediction():
    measure, seen = machine(lambda tried: 200.0 + (tried.max_batch_size or 8))
    found = search(DEFAULT, OTHERS, measure)
    for stage, times in (("screen", 1), ("halving", 2), ("final", 3)):
        assert [tried for at, tried, _ in seen if at == stage].count(DEFAULT) == times
    final = [tried for at, tried, _ in seen if at == "final"]
    assert final == [DEFAULT, final[1], final[1], DEFAULT, DEFAULT, final[1]], "in turns"
    predicted = [entry for entry in seen if entry[0] == "prediction"]
    assert predicted == [("prediction", found.chosen, True)] * 3
    assert len(found.measured) == len(seen)


@pytest.mark.parametrize(("rates", "wins"), [([120.0, 101.0, 120.0], True), ([120.0, 99.0, 120.0], False)])
def test_what_is_worse_in_one_round_is_not_chosen(rates, wins):
    final = iter(rates)

    def measure(tried, stage, _precise):
        rate = 100.0 if tried == DEFAULT else next(final) if stage == "final" else 120.0
        return Measured(tried, stage, rate, 0.0, None)

    assert search(DEFAULT, [Tried(fronts=2)], measure).chosen == (Tried(fronts=2) if wins else DEFAULT)


def test_nothing_else_to_try():
    measure, seen = machine(lambda _: 100.0)
    assert search(DEFAULT, [], measure).rate == 100.0
    assert {stage for stage, _, _ in seen} == {"screen", "prediction"}


def test_an_objective_that_only_another_setting_keeps():
    found = search(DEFAULT, OTHERS, machine(lambda tried: 50.0 if tried.max_batch_size == 4 else 0.0)[0])
    assert (found.chosen, found.rate, found.gain) == (Tried(max_batch_size=4), 50.0, None)


def test_an_objective_that_nothing_keeps():
    found = search(DEFAULT, OTHERS, machine(lambda _: 0.0)[0])
    assert (found.chosen, found.rate) == (DEFAULT, 0.0)
