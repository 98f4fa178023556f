import numpy as np

from taxon.explanation.activation import normalised, of_label

MAPS = np.array([[[3, 1]], [[1, 1]], [[2, 1]]], np.float32)
"""Three labels, one row of two places."""


def test_the_most_that_speaks_for_a_label_is_one_and_what_speaks_against_it_is_nothing():
    assert normalised(np.array([[4, -8], [2, 0]], np.float32)).tolist() == [[1, 0], [0.5, 0]]


def test_what_a_place_adds_to_all_labels_alike_decides_nothing_if_one_fits():
    assert of_label(MAPS, 0, "single_label").tolist() == [[1, 0]]
    assert of_label(MAPS, 1, "single_label").tolist() == [[0, 0]]
    assert of_label(MAPS, 1, "multi_label").tolist() == [[1, 1]]


def test_rounding_is_no_evidence():
    assert normalised(np.array([[1e-9, -1.0]], np.float32)).tolist() == [[0, 0]]
    assert normalised(np.zeros((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]
