"""Chance, by hand."""

import numpy as np
import pytest

from taxon.training.loop.significance import changed, holm, loss_p_value, wilson


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(0, 0, 1.0), (0, 5, 1 / 32), (5, 0, 1.0), (1, 4, 6 / 32)],
    ids=["no pair differs", "only lost", "only gained", "mostly lost"],
)
def test_losses_are_tails_of_a_fair_coin(gained, lost, expected):
    assert loss_p_value(gained, lost) == pytest.approx(expected)


def test_holm_multiplies_by_those_that_are_left_and_never_falls():
    assert holm([0.01, 0.02, 0.02, 0.9]) == pytest.approx([0.04, 0.06, 0.06, 0.9])
    assert holm([0.5, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_wilson_by_hand():
    """(8 + 1.92) / (10 + 3.84) ± 1.96 / 13.84 · √(8 · 2 / 10 + 0.96)."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_what_only_one_of_two_gets_right():
    before, after = np.arange(10) < 6, np.arange(10) >= 4
    assert changed(before, after) == (4, 4)
    assert changed(before, np.ones(10, dtype=bool)) == (4, 0)
