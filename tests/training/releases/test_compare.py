import numpy as np
import pytest

from taxon.training.commands.promote import refusal
from taxon.training.dataset.slices import Slice
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


def halves_of(lost, slice_count):
    """100 pictures, all right before; the first `lost` are wrong after. The last 30 were wrong and are right."""
    before, after = np.arange(100) < 70, np.arange(100) >= lost
    parts = [Slice("night", np.arange(40)), *(Slice(f"lens {n}", np.arange(40, 100)) for n in range(slice_count - 1))]
    path = compare.Path()
    answers = (compare.Answers(right, 0.0, path) for right in (before, after))
    return compare.compare(*answers, [("a",)] * 100, parts=parts)


def test_a_version_that_is_better_but_loses_on_a_slice_is_refused_by_its_name():
    """8 of 40 lost, none gained: 1/2^8, times 5 slices."""
    result = halves_of(8, 5)
    assert result.difference == pytest.approx(0.22)
    assert (result.slices[0].title, result.slices[0].p_value) == ("night", pytest.approx(5 / 256))
    reason = refusal(result, 0.0)
    assert "the slice 'night', 40 pictures, its accuracy is 80.00%, the default's 100.00% (8 lost, 0 gained" in reason
    assert "lens" not in reason
    assert not refusal(result, 0.2)


def test_of_many_slices_one_loses_by_chance():
    """The same loss is one in 12.8 among 20 slices, and 4 lost of 40 are one in 16 even alone."""
    assert not refusal(halves_of(8, 20), 0.0)
    assert not refusal(halves_of(4, 1), 0.0)


def test_holm_by_hand():
    before, after = np.ones(60, dtype=bool), np.ones(60, dtype=bool)
    after[[*range(7), *range(20, 26), *range(40, 42)]] = False
    parts = [Slice(name, np.arange(start, start + 20)) for name, start in (("a", 0), ("b", 20), ("c", 40))]
    found = [change.p_value for change in compare.slice_changes(before, after, parts)]
    assert found == pytest.approx([3 / 128, 2 / 64, 1 / 4])
