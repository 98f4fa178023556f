import numpy as np
import pytest

from taxon.training.loop import metrics


def test_the_error_of_certain_and_wrong_answers_is_one():
    scores = np.tile(np.array([1.0, 0.0], dtype=np.float32), (10, 1))
    targets = np.tile([False, True], (10, 1))
    assert metrics.reliability(scores, targets, "single_label").error == 1.0
    assert metrics.reliability(scores, ~targets, "single_label").error == 0.0


def test_the_error_by_hand():
    """Two bins: 3 of 4 right at 0.8, 0 of 1 right at 0.6."""
    best = np.array([0.8, 0.8, 0.8, 0.8, 0.6], dtype=np.float32)
    scores = np.stack([best, 1 - best], axis=1)
    targets = np.array([[True, False]] * 3 + [[False, True]] * 2)
    expected = 0.8 * 0.05 + 0.2 * 0.6
    assert metrics.reliability(scores, targets, "single_label").error == pytest.approx(expected)


def test_every_bin_is_counted():
    """Two bins: four answers of 0.9 that are right half the time, and two of 0.6 that always are."""
    given = np.float32([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    found = metrics.reliability(given, metrics.as_truth(np.int64([0, 0, 1, 1, 0, 0]), 2), "single_label")
    assert found.error == pytest.approx((4 * 0.4 + 2 * 0.4) / 6, abs=1e-6)
    assert found.counts.sum() == 6


def test_several_labels_are_right_only_together():
    scores = np.float32([[0.9, 0.1], [0.5, 0.4], [0.2, 0.2]])
    truth = np.array([[True, False], [True, True], [False, False]])
    assert metrics.right(scores, truth, "multi_label").tolist() == [True, False, True]
    assert metrics.accuracy(scores, truth, "multi_label") == pytest.approx(2 / 3)


def test_a_sample_of_no_known_class_is_answered_wrongly():
    assert metrics.right(np.float32([[0.9, 0.1]]), np.array([[False, False]]), "single_label").tolist() == [False]


def test_the_averages_by_hand():
    """Class a: one of two found, both answers right; class b: found, and one answer too many; class c: nothing."""
    scores = np.float32([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.9, 0.0]])
    truth = metrics.as_truth(np.int64([0, 0, 1]), 3)
    found = metrics.averages(scores, truth, "single_label", "macro")
    assert found == pytest.approx({"precision": (1 + 0.5) / 3, "recall": (0.5 + 1) / 3, "f1": (2 / 3 + 2 / 3) / 3})
    assert metrics.averages(scores, truth, "single_label", "micro")["f1"] == pytest.approx(2 / 3)
