import numpy as np
import pytest

from taxon.training.advice import curve as curves
from taxon.training.advice.curve import SHARES, by_share, curve, needs
from taxon.training.advice.probe import folds_of, probe
from taxon.training.errors import TrainingError
from tests.training.advice.test_probe import blobs, samples_of


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(curves, "RESAMPLES", 40)


def answers(law, picture_count=4000, largest=1600):
    """Right answers whose errors follow a law exactly, as far as whole pictures allow; harder pictures first."""
    a, b, c = law
    order = np.random.default_rng(0).permutation(picture_count)
    found = {}
    for share in SHARES:
        wrong = np.zeros(picture_count, dtype=bool)
        wrong[order[: round((a + b * share**-c) * picture_count)]] = True
        found[share] = (round(share * largest), ~wrong)
    return found


def test_an_inverse_power_law_is_found_again_and_extrapolated():
    found = curve(answers((0.05, 0.1, 0.5)), 10)
    assert found.law == pytest.approx((0.05, 0.1, 0.5), abs=0.01)
    twice, fourfold = found.forecasts
    assert twice.picture_count == 3200
    assert twice.accuracy == pytest.approx(1 - 0.05 - 0.1 * 2**-0.5, abs=0.003)
    assert fourfold.accuracy == pytest.approx(1 - 0.05 - 0.1 * 4**-0.5, abs=0.005)
    assert fourfold.low < fourfold.accuracy < fourfold.high
    assert fourfold.high - fourfold.low > twice.high - twice.low  # further away is less sure


def test_a_flat_curve_promises_nothing():
    found = curve(answers((0.2, 0.0, 0.5)), 10)
    assert found.forecasts[-1].accuracy == pytest.approx(0.8, abs=0.005)


def test_without_errors_none_are_left():
    assert curve(answers((0.0, 0.0, 0.5)), 10).forecasts[0].accuracy == pytest.approx(1.0, abs=1e-3)


def test_a_class_that_the_last_doubling_helped_needs_more():
    targets = np.arange(400) % 2
    full, half = np.ones(400, dtype=bool), np.ones(400, dtype=bool)
    full[targets == 1] = np.arange(200) % 10 > 0
    half[targets == 1] = np.arange(200) % 10 > 2
    first, second = needs({SHARES[-2]: (160, half), 1.0: (320, full)}, targets, ("easy", "hard"))
    assert (first.label, first.need, first.gain) == ("hard", "more", pytest.approx(0.2))
    assert (second.label, second.need) == ("easy", "")


def test_a_class_of_few_pictures_is_unclear():
    targets = np.asarray([0] * 6 + [1] * 100)
    right = np.ones(106, dtype=bool)
    assert [part.need for part in needs({0.5: (40, right), 1.0: (80, right)}, targets, ("few", "many"))] == [
        "unclear",
        "",
    ]


def test_shares_are_of_the_training_pictures_of_a_fold():
    features, targets = blobs()
    samples = samples_of(targets)
    folds = folds_of(targets, samples, 4)
    full = probe(features, targets, folds)
    found = by_share(features, targets, samples, folds, full)
    assert [count for count, _ in found.values()] == [6, 12, 24, 45, 90]
    assert found[1.0][1] is full.right


def test_few_pictures_make_no_curve():
    features, targets = blobs(count=12)
    samples = samples_of(targets)
    folds = folds_of(targets, samples, 2)
    with pytest.raises(TrainingError, match="too few for a learning curve"):
        by_share(features, targets, samples, folds, probe(features, targets, folds))
