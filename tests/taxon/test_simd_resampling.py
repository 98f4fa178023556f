"""`simd` gives the same bytes on every processor, with the library and without it."""

import builtins
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle import fixed_point, simd_resampling
from taxon.bundle.geometry import sides
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode, why_slow
from tests.taxon.test_pixels import encode, noise, waves

SIMD = PixelSpec(resize=64, crop=(56, 56), resampler="simd")
PILLOW = SIMD.model_copy(update={"resampler": "pillow"})
FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}


@pytest.fixture
def chosen_anew():
    chosen = simd_resampling.chosen
    chosen.cache_clear()
    yield
    chosen.cache_clear()


def library():
    return pytest.importorskip("cykooz_resizer", reason="has no wheel for this machine")


@pytest.mark.parametrize(
    ("interpolation", "color", "digest"),
    [
        ("bilinear", "rgb", "9323c36e186d6b8e"),
        ("bicubic", "rgb", "5a7af5c81b71f75c"),
        ("lanczos", "rgb", "864d81ffcc1f2199"),
        ("bilinear", "grayscale", "fcd3b584376d96cd"),
    ],
)
@pytest.mark.parametrize("with_library", [True, False])
def test_the_bytes_are_these(monkeypatch, chosen_anew, interpolation, color, digest, with_library):
    """On every machine: a bundle's goldens hold only there."""
    if with_library:
        library()
    else:
        monkeypatch.setattr(simd_resampling, "chosen", lambda: (simd_resampling.with_numpy, "asked for"))
    spec = SIMD.model_copy(update={"interpolation": interpolation, "color": color})
    assert sha256(decode(encode(waves(301, 203)), spec).tobytes()).hexdigest()[:16] == digest


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    resized=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    interpolation=st.sampled_from(sorted(FILTERS)),
    mode=st.sampled_from(["RGB", "L"]),
    only_extremes=st.booleans(),
)
def test_every_instruction_set_gives_the_bytes_of_numpy(size, resized, crop, interpolation, mode, only_extremes):
    cykooz = library()
    picture = noise(*size).convert(mode)
    if only_extremes:  # overshoot of filters with negative parts
        picture = picture.point(lambda value: 255 * (value > 127))
    x, y = sides(size, resized, crop)
    box = x.begin, y.begin, x.extent, y.extent
    expected = fixed_point.resize(np.asarray(picture), box, (x.count, y.count), interpolation)
    options = cykooz.ResizeOptions(
        cykooz.ResizeAlg.convolution(cykooz.FilterType[FILTERS[interpolation]]),
        use_alpha=False,
        crop_box=cykooz.CropBox(*box),
    )
    resizer = cykooz.Resizer()
    best = resizer.cpu_extensions
    known = cykooz.CpuExtensions
    x86 = {known.avx2: (known.none, known.sse4_1, known.avx2), known.sse4_1: (known.none, known.sse4_1)}
    for extensions in x86.get(best, (known.none, best)):
        resizer.cpu_extensions = extensions
        result = Image.new(mode, (x.count, y.count))
        resizer.resize_pil(picture, result, options)
        np.testing.assert_array_equal(np.asarray(result), expected, err_msg=str(extensions))


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
@pytest.mark.parametrize("size", [(640, 480), (333, 517), (64, 64), (50, 30), (5, 7)])
@pytest.mark.parametrize("crop", [(56, 56), (64, 63), (80, 20)])
def test_it_is_pillows_picture_but_for_rounding(interpolation, size, crop):
    change = {"interpolation": interpolation, "crop": crop}
    encoded = encode(waves(*size))
    simd, pillow = (decode(encoded, spec.model_copy(update=change)).astype(int) for spec in (SIMD, PILLOW))
    assert np.abs(simd - pillow).max() <= 2
    assert np.abs(simd - pillow).mean() < 0.4


def test_nearest_is_pillows():
    change = {"interpolation": "nearest"}
    encoded = encode(noise(301, 203))
    simd, pillow = (decode(encoded, spec.model_copy(update=change)) for spec in (SIMD, PILLOW))
    np.testing.assert_array_equal(simd, pillow)
    assert why_slow(SIMD.model_copy(update=change)) is None


def test_without_the_library_numpy_resizes_and_it_is_said(monkeypatch, chosen_anew):
    imported = builtins.__import__

    def without(name, *rest):
        if name == "cykooz_resizer":
            raise ModuleNotFoundError("No module named 'cykooz_resizer'")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert why_slow(SIMD) == "cykooz-resizer cannot be imported: No module named 'cykooz_resizer'"
    assert why_slow(PILLOW) is None
    assert simd_resampling.chosen()[0] is simd_resampling.with_numpy


def test_a_library_that_gives_other_bytes_is_not_used(monkeypatch, chosen_anew):
    def other(picture, box, size, interpolation):
        return picture.resize(size, box=(box[0], box[1], box[0] + box[2], box[1] + box[3]))

    monkeypatch.setattr(simd_resampling, "_library", lambda: other)
    assert why_slow(SIMD) == "cykooz-resizer gives other pixels than those that `simd` stands for"


def test_with_the_library_nothing_is_slow(chosen_anew):
    library()
    assert why_slow(SIMD) is None
