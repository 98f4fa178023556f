import numpy as np
import pytest
from scipy.stats import binomtest

from taxon.training.rounds.verdict import class_tests


def test_classes_are_tested_by_hand():
    """Of class a six are lost and none gained, one-sided 1/64, times two classes; class b is as it was."""
    labels = [("a",)] * 20 + [("b",)] * 20
    before = np.ones(40, dtype=bool)
    after = before.copy()
    after[:6] = False
    after[20] = False
    first, second = class_tests(before, after, labels)
    assert (first.label, first.before, first.after, first.count) == ("a", 1.0, 0.7, 20)
    assert first.p_value == pytest.approx(2 / 64)
    assert first.is_worse
    assert second.p_value == pytest.approx(0.5)
    assert not second.is_worse


def test_many_classes_make_a_loss_by_chance_more_likely():
    labels = [(f"class {number}",) for number in range(10) for _ in range(20)]
    before = np.ones(200, dtype=bool)
    after = before.copy()
    after[:6] = False
    first = class_tests(before, after, labels)[0]
    assert first.p_value == pytest.approx(10 * binomtest(6, 6, alternative="greater").pvalue)
    assert not first.is_worse
