import numpy as np
import pytest

from taxon.explanation.masking import Evidence, masked, masks


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (8, 8), (60, 45)])
def test_masks_are_smooth_shares_that_come_in_pairs_and_always_the_same(size):
    found = list(masks(*size, 9))
    assert [mask.shape for mask in found] == [size] * 9
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in found)
    np.testing.assert_allclose(found[0] + found[1], 1, atol=1e-6)
    for mask, again in zip(found, masks(*size, 9), strict=True):
        np.testing.assert_array_equal(mask, again)
    many = np.stack(list(masks(*size, 200)))
    np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=1e-6)


def test_what_is_not_seen_has_the_mean_colour():
    picture = np.array([[[0, 100, 200], [200, 100, 0]]], np.uint8)
    seen = np.array([[1.0, 0.0]], np.float32)
    assert masked(picture, seen).tolist() == [[[0, 100, 200], [100, 100, 100]]]


def test_evidence_points_at_the_place_that_the_score_goes_with():
    """The score is how much is seen of one pixel; another half of it is there whatever is hidden."""
    evidence = Evidence(40, 60)
    for seen in masks(40, 60, 400):
        evidence.add(seen, 0.5 + 0.5 * float(seen[30, 15]))
    heat = evidence.map()
    assert heat.shape == (28, 28)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (abs(row - 30 * 28 / 40), abs(column - 15 * 28 / 60)) < (2, 2)
    assert heat[row, column] == 1
    assert heat[:10, 14:].mean() < 0.2


def test_a_score_that_never_changes_and_no_score_at_all_are_no_evidence():
    evidence = Evidence(8, 8)
    assert (evidence.map() == 0).all()
    for seen in masks(8, 8, 20):
        evidence.add(seen, 0.7)
    assert (evidence.map() == 0).all()
    assert evidence.count == 20
