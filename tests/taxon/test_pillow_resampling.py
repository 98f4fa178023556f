"""What the crop keeps is bit by bit what Pillow's resize and a crop of it give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle.geometry import sides
from taxon.bundle.jpeg import over
from taxon.bundle.pillow_resampling import resized_crop
from tests.taxon.test_pixels import noise

LENGTHS = st.one_of(st.integers(1, 150), st.sampled_from([375, 500]))
TARGETS = st.one_of(st.integers(1, 70), st.sampled_from([8, 16, 64, 128]))


def check(
    size: tuple[int, int], resized: tuple[int, int], crop: tuple[int, int], interpolation: str, mode: str
) -> None:
    picture = noise(*size).convert(mode)
    array = np.asarray(picture.convert("RGBX") if mode == "RGB" else picture)
    x, y = sides(size, resized, crop)
    whole = picture.resize(resized, Image.Resampling[interpolation.upper()])
    expected = np.asarray(whole)[y.first : y.first + y.count, x.first : x.first + x.count]
    for given_array in (None, array):
        source = picture if given_array is None else over(given_array)
        np.testing.assert_array_equal(np.asarray(resized_crop(source, given_array, x, y, interpolation)), expected)


@settings(max_examples=400, deadline=None)
@given(
    size=st.tuples(LENGTHS, LENGTHS),
    resized=st.tuples(TARGETS, TARGETS),
    crop=st.tuples(TARGETS, TARGETS),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_bit_equal_to_the_whole_resize(size, resized, crop, interpolation, mode):
    check(size, resized, crop, interpolation, mode)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((1000, 750), (341, 256)),
        ((750, 1000), (256, 341)),
        ((1000, 750), (309, 232)),
        ((601, 601), (256, 256)),
        ((256, 700), (256, 700)),
        ((256, 700), (256, 350)),
        ((200, 1500), (64, 480)),
        ((200, 301), (256, 385)),
    ],
)
def test_the_usual_sizes(size, resized, interpolation):
    """Also where Pillow resizes the columns first, only one side, nothing, or makes the picture larger."""
    check(size, resized, (224, 224), interpolation, "RGB")
