import numpy as np
import pytest

from taxon.bundle.distributions import bin_of, brightness, distribution
from taxon.bundle.manifest import Distribution


def test_brightness_of_plain_pictures_and_of_a_gradient():
    arrays = np.zeros((3, 224, 160, 3), dtype=np.uint8)
    arrays[1] = 255
    arrays[2] = np.linspace(0, 255, 160)[None, :, None]
    assert brightness(arrays) == pytest.approx([0.0, 1.0, 0.5], abs=0.03)
    assert brightness(np.full((1, 5, 3, 1), 51, np.uint8)) == pytest.approx([0.2])


def test_deciles_hold_a_tenth_each_and_the_ends_nothing():
    found = distribution("brightness", np.random.default_rng(0).permutation(1000) / 1000)
    assert found.counts[0] == found.counts[-1] == 0
    assert sum(found.counts) == 1000
    assert all(count == pytest.approx(100, abs=11) for count in found.counts[1:-1])


def test_what_is_all_alike_still_has_a_below_and_an_above():
    found = distribution("side", np.full(7, 32.0))
    assert (found.edges, found.counts) == ((31.5, 32.5), (0, 7, 0))
    assert [bin_of(found.edges, value) for value in (31.0, 32.0, 33.0)] == [0, 1, 2]


def test_scores_that_other_arithmetic_moves_stay_in_their_bin():
    scores = np.array([0.99996, 0.99999, 1.0] * 30, dtype=np.float32)
    found = distribution("score", scores)
    assert {bin_of(found.edges, float(score) - 1e-4) for score in scores} == {1}


@pytest.mark.parametrize(
    ("edges", "counts"), [((1.0, 1.0), (0, 1, 0)), ((2.0, 1.0), (0, 1, 0)), ((1.0,), (1,)), ((1.0,), (0, 0))]
)
def test_bins_that_are_none_are_refused(edges, counts):
    with pytest.raises(ValueError, match=r"ascend|bins"):
        Distribution(edges=edges, counts=counts)
