"""Chance, by hand."""

import pytest

from taxon.training.loop.paired import holm, loss_p_value


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
