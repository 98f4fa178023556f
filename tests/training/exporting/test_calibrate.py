import numpy as np
import pytest

from taxon.training.exporting import calibrate
from taxon.training.exporting.calibrate import UNCALIBRATED
from taxon.training.exporting.parity import scores_of


def drawn(temperature, count=4000, classes=4, seed=0):
    """Logits, and targets drawn from the scores that they would have at `temperature`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, classes)).astype(np.float32)
    scores = scores_of(logits, "single_label", temperature)
    picks = (scores.cumsum(axis=1) > generator.random((count, 1))).argmax(axis=1)
    return logits, np.eye(classes, dtype=bool)[picks]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_data_is_found(temperature):
    logits, targets = drawn(temperature)
    assert calibrate.fit_temperature(logits, targets, "single_label") == pytest.approx(temperature, rel=0.06)


def test_overconfidence_shows_and_goes():
    logits, targets = drawn(3.0)
    result = calibrate.calibrate(logits, targets, "single_label")
    assert result.calibration.ece_before > 0.2
    assert result.calibration.ece < 0.03
    assert result.temperature == pytest.approx(3.0, rel=0.06)


def test_good_scores_are_left_alone():
    """Only noise is left to fit; a temperature must earn its place on the other half."""
    logits, targets = drawn(1.0)
    result = calibrate.calibrate(logits, targets, "single_label")
    assert result.temperature == pytest.approx(1.0, abs=0.06)
    assert result.calibration.ece <= result.calibration.ece_before


@pytest.mark.parametrize("scale", [2.0, 30.0])
def test_without_errors_certainty_ends_where_the_number_of_pictures_says(scale):
    """400 of 400 right is evidence for about 401 of 402, whatever the network itself thinks of it."""
    logits = scale * np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    temperature = calibrate.fit_temperature(logits, logits > 0, "single_label")
    certainty = scores_of(logits, "single_label", temperature).max(axis=1).mean()
    assert certainty == pytest.approx(1 - 1 / 402, abs=2e-3)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 1.0])
def test_the_unknown_threshold_keeps_the_stated_share(coverage):
    logits, targets = drawn(1.0, count=1000)
    scores = scores_of(logits, "single_label")
    result = calibrate.with_unknown(UNCALIBRATED, scores, targets, coverage)
    assert result.calibration.unknown_coverage == pytest.approx(coverage, abs=0.002)
    assert (scores.max(axis=1) >= result.thresholds.unknown).mean() >= coverage
    assert result.thresholds.unknown_by == "score"


@pytest.mark.parametrize("coverage", [0.5, 0.9, 1.0])
def test_the_threshold_is_the_familiaritys_where_it_is_judged(coverage):
    logits, targets = drawn(1.0, count=1000)
    scores = scores_of(logits, "single_label")
    familiarity = np.random.default_rng(1).random(1000, dtype=np.float32)
    rows = np.concatenate([scores, familiarity[:, None]], axis=1)
    result = calibrate.with_unknown(UNCALIBRATED, rows, targets, coverage)
    kept = familiarity >= result.thresholds.unknown
    assert kept.mean() == pytest.approx(coverage)
    assert result.thresholds.unknown_by == "familiarity"
    assert result.calibration.unknown_coverage == pytest.approx(coverage)
    right = targets[np.arange(1000), scores.argmax(axis=1)]
    assert result.calibration.unknown_accuracy == pytest.approx(right[kept].mean())


def test_what_was_calibrated_before_stays():
    logits, targets = drawn(3.0)
    calibrated = calibrate.calibrate(logits, targets, "single_label")
    result = calibrate.with_unknown(calibrated, scores_of(logits, "single_label", 3.0), targets, 0.9)
    assert result.temperature == calibrated.temperature
    assert result.calibration.ece == calibrated.calibration.ece


def test_less_coverage_means_better_answers():
    logits, targets = drawn(1.0)
    scores = scores_of(logits, "single_label")
    accuracies = [
        calibrate.with_unknown(UNCALIBRATED, scores, targets, coverage).calibration.unknown_accuracy
        for coverage in (1.0, 0.7, 0.3)
    ]
    assert accuracies == sorted(accuracies)


@pytest.mark.parametrize("coverage", [0.0, -1.0, 1.1])
def test_a_coverage_out_of_range_is_refused(coverage):
    with pytest.raises(ValueError, match="coverage"):
        calibrate.unknown_threshold(np.ones(3, dtype=np.float32), coverage)


def test_each_label_gets_the_threshold_that_separates_it():
    generator = np.random.default_rng(0)
    targets = generator.random((400, 3)) < 0.5
    targets[:, 2] = False
    targets[:3, 2] = True
    scores = np.where(targets, 0.3, 0.2).astype(np.float32)
    scores[:, 1] = np.where(targets[:, 1], 0.9, 0.7)
    assert calibrate.label_thresholds(scores, targets) == pytest.approx((0.3, 0.9, 0.5))


def test_several_labels_are_calibrated_together():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (2000, 3)).astype(np.float32)
    targets = generator.random((2000, 3)) < scores_of(logits, "multi_label", 2.0)
    result = calibrate.calibrate(logits, targets, "multi_label")
    assert result.temperature == pytest.approx(2.0, rel=0.1)
    assert result.calibration.ece < result.calibration.ece_before
    assert len(result.thresholds.labels) == 3
    assert result.thresholds.unknown is None
