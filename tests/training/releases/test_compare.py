import numpy as np
import pytest

from taxon.training.releases import compare


def test_the_interval_of_the_difference_by_hand():
    low, high = compare.difference_interval(10, 0, 100)
    center, reach = 10 / 102, 1.96 * (11 - 100 / 102) ** 0.5 / 102
    assert (low, high) == pytest.approx((center - reach, center + reach), abs=1e-5)
    assert compare.difference_interval(0, 0, 100)[0] < 0 < compare.difference_interval(0, 0, 100)[1]


def test_mcnemar_by_hand(tmp_path):
    """8 gained, 1 lost: two-sided binomial, 2 * (C(9,0) + C(9,1)) / 2^9."""
    labels = [("a",)] * 20
    before = compare.Answers(np.array([False] * 8 + [True] + [True] * 11), 0.0, tmp_path)
    after = compare.Answers(np.array([True] * 8 + [False] + [True] * 11), 0.0, tmp_path)
    result = compare.compare(before, after, labels)
    assert (result.gained, result.lost) == (8, 1)
    assert result.p_value == pytest.approx(20 / 512)
    assert result.difference == pytest.approx(7 / 20)


def test_classes_that_got_worse_are_named_worst_first():
    labels = [("a",)] * 10 + [("b",)] * 10 + [("c",)] * 10
    before = np.ones(30, dtype=bool)
    after = before.copy()
    after[[0, 1]] = False
    after[10:15] = False
    assert [change.label for change in compare.regressions(before, after, labels)] == ["b", "a"]
