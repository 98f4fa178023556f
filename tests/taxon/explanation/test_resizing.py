import numpy as np

from taxon.explanation.resizing import resized


def test_places_are_interpolated_between_their_centres_and_the_edges_repeated():
    assert resized(np.array([[0, 1]], np.float32), 1, 4).tolist() == [[0, 0.25, 0.75, 1]]
    assert resized(np.array([[0, 1, 2, 3]], np.float32).T, 2, 1).tolist() == [[0.5], [2.5]]


def test_the_same_size_is_the_same():
    values = np.random.default_rng(0).random((5, 3), np.float32)
    np.testing.assert_allclose(resized(values, 5, 3), values)
