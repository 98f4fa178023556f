"""libjpeg-turbo through simplejpeg gives the bits that Pillow gives, or leaves the picture to Pillow."""

from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle import jpeg
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import PictureError, PictureUndecodableError
from taxon.bundle.pixels import decode, open_picture
from tests.taxon.test_pixels import encode, noise, waves


def both(encoded: bytes, draft: tuple[str | None, int] | None = None) -> tuple[np.ndarray | None, np.ndarray]:
    """Ours, without the fourth channel, and Pillow's."""
    pictures = [open_picture(BytesIO(encoded)) for _ in range(2)]
    if draft:
        for picture in pictures:
            picture.draft(draft[0], (draft[1], draft[1]))
    array = jpeg.decoded(pictures[0], encoded)
    return array if array is None or array.ndim == 2 else array[:, :, :3], np.asarray(pictures[1])


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    mode=st.sampled_from(["RGB", "L"]),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    quality=st.integers(5, 100),
    progressive=st.booleans(),
    restart=st.integers(0, 5),
    scaled_to=st.sampled_from([None, 5, 20]),
)
def test_the_bits_are_pillows(size, mode, subsampling, quality, progressive, restart, scaled_to):
    options = {"subsampling": subsampling} if mode == "RGB" else {}
    encoded = encode(
        noise(*size).convert(mode),
        "JPEG",
        quality=quality,
        progressive=progressive,
        restart_marker_blocks=restart,
        **options,
    )
    ours, pillows = both(encoded, scaled_to and (None, scaled_to))
    if ours is None:
        assert scaled_to is not None
        assert min(pillows.shape[:2]) < jpeg.SMALLEST_SCALED
    else:
        np.testing.assert_array_equal(ours, pillows)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("size", [(64, 48), (61, 47), (1, 1), (17, 3)])
def test_every_subsampling_that_it_names(subsampling, size):
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(waves(*size)), 90, "RGB", subsampling)
    ours, pillows = both(encoded)
    np.testing.assert_array_equal(ours, pillows)


@pytest.mark.parametrize("side", [60, 30, 15])
def test_a_colour_picture_as_grey_at_a_fraction_of_its_sides(side):
    """As the data doctor looks at it."""
    ours, pillows = both(encode(waves(403, 301), "JPEG"), ("L", side))
    assert pillows.ndim == 2
    np.testing.assert_array_equal(ours, pillows)


def test_colours_that_were_stored_as_they_are():
    ours, pillows = both(encode(waves(60, 40), "JPEG", keep_rgb=True))
    np.testing.assert_array_equal(ours, pillows)


def test_a_picture_with_another_behind_it():
    encoded = encode(waves(64, 48), "MPO", save_all=True, append_images=[waves(32, 24)])
    ours, pillows = both(encoded)
    np.testing.assert_array_equal(ours, pillows)


WHOLE = encode(waves(64, 48), "JPEG", quality=90)


@pytest.mark.parametrize(
    "encoded",
    [
        encode(waves(64, 48).convert("CMYK"), "JPEG"),
        encode(waves(64, 48)),
        WHOLE[:-2],
        WHOLE[:-200],
        WHOLE[:400] + b"\xff\xd0" + WHOLE[400:],
    ],
    ids=["CMYK", "PNG", "no end", "truncated", "a marker out of turn"],
)
def test_what_is_left_to_pillow(encoded):
    assert jpeg.decoded(open_picture(BytesIO(encoded)), encoded) is None


def test_another_size_than_pillow_has_read_is_left_to_pillow():
    """What simplejpeg makes room for was never held to the limits."""
    assert jpeg.decoded(open_picture(BytesIO(WHOLE)), encode(waves(65, 48), "JPEG")) is None


def test_pictures_whose_bytes_an_int_cannot_count_are_left_to_pillow(monkeypatch):
    monkeypatch.setattr(jpeg, "MAX_BYTES", 4 * 64 * 48 - 1)
    assert jpeg.decoded(open_picture(BytesIO(WHOLE)), WHOLE) is None


def test_without_simplejpeg_pillow_decodes(monkeypatch):
    before = verdict(WHOLE)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert jpeg.decoded(open_picture(BytesIO(WHOLE)), WHOLE) is None
    assert verdict(WHOLE) == before


def test_too_little_memory_is_no_fault_of_the_picture(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    with pytest.raises(MemoryError):
        decode(WHOLE, PixelSpec(resize=8, crop=(8, 8)))


def test_a_picture_lies_in_its_arrays_memory():
    for shape, mode in (((5, 7, 4), "RGB"), ((5, 7), "L")):
        array = np.zeros(shape, dtype=np.uint8)
        picture = jpeg.over(array)
        array[2, 3] = 9
        assert (picture.mode, picture.size) == (mode, (7, 5))
        assert np.asarray(picture)[2, 3].max() == 9


def verdict(encoded: bytes) -> bytes | str:
    try:
        return decode(encoded, PixelSpec(resize=8, crop=(8, 8))).tobytes()
    except PictureError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(
        [
            encode(noise(40, 28), "JPEG", **options)
            for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1})
        ]
    ),
    cuts=st.lists(st.tuples(st.integers(2, 4000), st.integers(0, 3), st.binary(max_size=4)), max_size=4),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damage that it can live with
def test_the_verdict_on_damage_is_pillows(seed, cuts):
    damaged = bytearray(seed)
    for at, length, patch in cuts:
        at %= len(damaged)
        damaged[at : at + length] = patch
    ours = verdict(bytes(damaged))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "decoded", lambda *_: None)
        assert verdict(bytes(damaged)) == ours


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    quality=st.integers(1, 100),
    progressive=st.booleans(),
)
def test_no_whole_picture_is_cut_off(size, subsampling, quality, progressive):
    """Not even an empty one, which has the fewest bytes that a picture can have."""
    encoded = BytesIO()
    options = {"subsampling": subsampling, "quality": quality, "progressive": progressive, "optimize": True}
    Image.new("RGB", size).save(encoded, "JPEG", **options)
    assert not jpeg.is_cut_off(encoded.getvalue(), size)


def test_a_few_bytes_that_claim_many_pixels_are_not_decoded(monkeypatch):
    encoded = bytearray(encode(noise(64, 64), "JPEG"))
    at = encoded.index(b"\xff\xc0") + 5
    encoded[at : at + 4] = (6000).to_bytes(2) + (8000).to_bytes(2)
    monkeypatch.setattr(jpeg, "decoded", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(PictureUndecodableError, match="cut off"):
        decode(bytes(encoded), PixelSpec(resize=8, crop=(8, 8)))
