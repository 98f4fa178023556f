import numpy as np
import pytest

from taxon.training.reporting import scores

LABELS = ("a", "b", "c")
SCORES = np.float32([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
TARGETS = np.int64([0, 1, 1, 2])


def test_figures_by_hand():
    found = scores.figures(SCORES, TARGETS, LABELS)
    assert found["accuracy"] == 0.75
    assert found["per_class"]["a"] == pytest.approx(
        {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "average_precision": 1.0, "count": 1}
    )
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["micro_f1"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["weighted_recall"] == pytest.approx(0.75)
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_several_labels_have_a_mean_average_precision_and_no_confusion():
    targets = np.int64([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]])
    found = scores.figures(SCORES, targets, LABELS)
    assert "confusion" not in found
    assert found["per_class"]["b"]["average_precision"] == 1.0
    assert 0.0 < found["mean_average_precision"] < 1.0


def test_a_class_without_samples_has_no_average_precision_and_does_not_count():
    found = scores.figures(SCORES, np.int64([0, 1, 1, 1]), LABELS)
    assert found["per_class"]["c"]["average_precision"] is None
    assert found["balanced_accuracy"] == pytest.approx((1.0 + 1 / 3) / 2)


def test_the_interval_holds_the_accuracy_and_shrinks_with_more_samples():
    small = scores.accuracy_interval(np.arange(50) % 10 > 0)
    large = scores.accuracy_interval(np.arange(5000) % 10 > 0)
    assert small[0] < 0.9 < small[1]
    assert large[1] - large[0] < (small[1] - small[0]) / 5


def test_an_interval_agrees_with_the_normal_approximation():
    low, high = scores.accuracy_interval(np.arange(1000) % 4 > 0)
    half = 1.96 * (0.75 * 0.25 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.005)


def test_worst_errors_are_wrong_and_the_surest_come_first():
    given = np.float32([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01]])
    assert scores.worst(given, np.int64([1, 1, 0]), 5).tolist() == [0, 1]


def test_confusions_come_with_the_most_frequent_first():
    found = scores.confusions([[8, 2, 0], [5, 5, 0], [1, 0, 0]], LABELS)
    assert found == [("b", "a", 5, 0.5), ("a", "b", 2, 0.2), ("c", "a", 1, 1.0)]
