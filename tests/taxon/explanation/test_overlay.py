from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon.explanation.overlay import drawn, png


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (224, 224)])
def test_a_png_has_the_pixels_that_it_was_given(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with Image.open(BytesIO(png(pixels))) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_where_nothing_speaks_for_the_label_the_picture_stays_in_grey(channels):
    picture = np.full((8, 8, channels), 90, np.uint8)
    heat = np.array([[0, 0], [0, 1]], np.float32)
    result = drawn(picture, heat)
    assert result.shape == (224, 224, 3)  # enlarged
    assert (result[:50, :50] == 90).all()
    assert result[-1, -1].max() > 150
    assert np.ptp(result[-1, -1].astype(int)) > 20


def test_large_pictures_keep_their_size():
    assert drawn(np.zeros((300, 400, 3), np.uint8), np.ones((7, 7), np.float32)).shape == (300, 400, 3)
