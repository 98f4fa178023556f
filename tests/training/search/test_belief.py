import numpy as np
import pytest

pytest.importorskip("optuna")

from taxon.training.search.belief import compare, sentence


def arms(default, best, pictures=1000):
    """Right answers by seed: the first pictures are wrong, so that seeds differ as little as they can."""
    return [np.stack([np.arange(pictures) >= wrong for wrong in arm]) for arm in (default, best)]


def test_a_clear_gain_is_believed():
    found = compare(*arms((100, 105, 95), (50, 55, 45)))
    assert found.difference == pytest.approx(0.05)
    assert found.low < 0.05 < found.high
    assert found.won
    assert sentence(found).startswith("The best trial beats the default by more than chance: +5.00%")


def test_a_gain_within_what_seeds_do_is_not():
    found = compare(*arms((100, 150, 50), (50, 110, 95)))
    assert found.difference > 0
    assert not found.won
    assert "did not beat the default by more than chance" in sentence(found)


def test_a_gain_of_a_few_pictures_is_not_however_alike_the_seeds():
    found = compare(*arms((10, 10, 10), (8, 8, 8), pictures=200))
    assert found.difference == pytest.approx(0.01)
    assert not found.won


def test_equal_arms_are_no_win():
    found = compare(*arms((0, 0, 0), (0, 0, 0)))
    assert (found.difference, found.low, found.high, found.won) == (0.0, 0.0, 0.0, False)


def test_a_worse_arm_is_no_win():
    assert not compare(*arms((50, 55, 45), (100, 105, 95))).won


def test_the_interval_holds_under_chance():
    """Two arms of equal settings, whose pictures and seeds are drawn: a win is to be rarer than one in forty."""
    random, wins = np.random.default_rng(0), 0
    for _ in range(400):
        hardness = random.normal(1.5, 1.0, 300)
        answers = [(hardness + random.normal(0, 0.1, (3, 1)) + random.normal(0, 0.7, (3, 300))) > 0 for _ in range(2)]
        wins += compare(*answers).won
    assert wins <= 10


def test_without_a_better_trial_the_default_stays():
    assert "they stay" in sentence(None)
