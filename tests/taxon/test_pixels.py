"""The preprocessing: equal to torchvision's where torchvision defines it, and safe on hostile bytes."""

import json
import zlib
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle import jpeg
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureError, PictureTooLargeError, PictureUndecodableError
from taxon.bundle.pixels import decode

VECTORS = Path(__file__).parent.parent / "contract" / "pixels"
SAME_SIZE = PixelSpec(resize=(4, 6), crop=(4, 6))
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(640, 480), (333, 517), (256, 256), (100, 30), (5, 7)])
@pytest.mark.parametrize(
    ("resize", "crop"),
    [(256, (224, 224)), (232, (224, 224)), (150, (224, 223)), ((99, 151), (99, 150)), (32, (33, 31))],
)
def test_bit_equal_to_torchvisions_evaluation_transform(interpolation, size, resize, crop):
    """Also where the crop is larger than the picture, and with odd remainders on either side."""
    transforms = pytest.importorskip("torchvision.transforms")
    picture = noise(*size)
    reference = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode[interpolation.upper()]),
            transforms.CenterCrop(crop),
        ]
    )
    spec = PixelSpec(resize=resize, crop=crop, interpolation=interpolation)
    np.testing.assert_array_equal(decode(encode(picture), spec), np.asarray(reference(picture)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_decode_as_torchvisions_loader_does(kind):
    transforms = pytest.importorskip("torchvision.transforms")
    encoded = encode(noise(301, 203), kind, quality=90)
    loaded = Image.open(BytesIO(encoded)).convert("RGB")
    reference = transforms.Compose([transforms.Resize(128), transforms.CenterCrop(112)])(loaded)
    np.testing.assert_array_equal(decode(encoded, PixelSpec(resize=128, crop=(112, 112))), np.asarray(reference))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_oriented_as_exif_says(orientation):
    """Turning the stored pixels by the inverse of each orientation must give the same upright picture."""
    upright = noise(6, 4)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encode(stored, exif=exif.tobytes()), SAME_SIZE), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")  # Pillow's remark; the picture is fine
def test_damaged_exif_does_not_stop_a_picture():
    encoded = encode(noise(6, 4), "PNG")
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00"  # ends inside its first directory
    broken = encode(noise(6, 4), "JPEG", exif=exif, quality=95)
    assert decode(broken, SAME_SIZE).shape == decode(encoded, SAME_SIZE).shape


def solid(mode: str, color: object, **info: object) -> Image.Image:
    picture = Image.new(mode, (6, 4), color)
    picture.info.update(info)
    return picture


def palette(color: tuple[int, int, int], **options: object) -> bytes:
    picture = Image.new("P", (6, 4), 1)
    picture.putpalette([9, 9, 9, *color])
    return encode(picture, **options)


@pytest.mark.parametrize(
    ("name", "encoded", "pixel"),
    [
        ("greyscale", encode(solid("L", 7)), (7, 7, 7)),
        ("bilevel", encode(solid("1", 1)), WHITE),
        ("palette", palette(RED), RED),
        ("palette with a transparent entry", palette(RED, transparency=1), WHITE),
        ("opaque alpha", encode(solid("RGBA", (*RED, 255))), RED),
        ("transparent alpha lies over white", encode(solid("RGBA", (*RED, 0))), WHITE),
        ("half alpha lies over white", encode(solid("RGBA", (0, 0, 0, 128))), (127, 127, 127)),
        ("grey with alpha", encode(solid("LA", (0, 0))), WHITE),
        ("a transparent colour", encode(solid("RGB", RED), transparency=RED), WHITE),
        ("16-bit grey", encode(Image.fromarray(np.full((4, 6), 0x1234, np.uint16))), (0x12, 0x12, 0x12)),
        ("CMYK", encode(solid("CMYK", (0, 0, 0, 0)), "JPEG", quality=100), WHITE),
        ("CMYK black", encode(solid("CMYK", (0, 0, 0, 255)), "JPEG", quality=100), BLACK),
        ("WebP", encode(solid("RGB", RED), "WEBP", lossless=True), RED),
        ("transparent WebP", encode(solid("RGBA", (1, 2, 3, 0)), "WEBP", lossless=True), WHITE),
        ("GIF", encode(solid("RGB", RED), "GIF"), RED),
    ],
)
def test_every_colour_mode_becomes_rgb(name, encoded, pixel):
    array = decode(encoded, SAME_SIZE)
    assert array.dtype == np.uint8
    assert array.shape == (4, 6, 3)
    assert {tuple(map(int, p)) for p in array.reshape(-1, 3)} == {pixel}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [solid("RGB", RED), solid("RGB", BLACK)]
    animated = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(animated, SAME_SIZE) == RED).all()


def test_greyscale_models_get_one_channel():
    array = decode(encode(solid("RGB", RED)), PixelSpec(resize=(4, 6), crop=(4, 6), color="grayscale"))
    assert array.shape == (4, 6, 1)
    assert set(array.ravel().tolist()) == {76}  # 0.299 of 255, ITU-R 601


def test_one_pixel_is_a_picture():
    array = decode(encode(Image.new("RGB", (1, 1), RED)), PixelSpec(resize=8, crop=(8, 8)))
    assert (array == RED).all()


@pytest.mark.parametrize(
    ("encoded", "detected"),
    [
        (b"", ""),
        (b"not a picture at all", ""),
        (encode(noise(64, 64), "JPEG")[:-300], "JPEG"),
        (encode(noise(64, 64), "PNG")[:-300], "PNG"),
        (encode(noise(64, 64), "GIF")[:1000], "GIF"),
        (encode(noise(64, 64), "BMP"), ""),
        (encode(noise(64, 64), "TIFF"), ""),
    ],
    ids=["empty", "text", "truncated JPEG", "truncated PNG", "truncated GIF", "BMP", "TIFF"],
)
def test_what_is_no_whole_picture_is_refused(encoded, detected):
    with pytest.raises(PictureUndecodableError) as caught:
        decode(encoded, SAME_SIZE)
    assert caught.value.detected_format == detected


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds next to nothing."""
    tiny = bytearray(encode(Image.new("L", (1, 1))))
    tiny[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    tiny[29:33] = zlib.crc32(tiny[12:29]).to_bytes(4, "big")
    return bytes(tiny)


def test_too_many_pixels_are_refused_from_the_header():
    with pytest.raises(PictureTooLargeError) as caught:
        decode(png_header(30_000, 30_000), SAME_SIZE)
    assert caught.value.pixel_count == 900_000_000


def test_a_strip_that_resizing_would_blow_up_is_refused():
    with pytest.raises(PictureTooLargeError) as caught:
        decode(encode(Image.new("L", (1, 10_000))), PixelSpec(resize=256, crop=(224, 224)))
    assert caught.value.pixel_count == 256 * 2_560_000


def of_scans(count: int, between: bytes = b"", tail: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is repeated, what decoders pass over, and what lies behind its end."""
    encoded = encode(
        Image.new("L", (64, 64), 90), "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda\xff\xd9" * 200
    )
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    return encoded[:-2] + scan * (count - SCANS) + encoded[-2:] + tail


SCANS = 6  # of Pillow's own grey pictures


@pytest.mark.filterwarnings("ignore::UserWarning")  # the EXIF data is none
def test_a_jpeg_of_very_many_scans_is_refused():
    """Markers inside other segments, or behind the picture, are none."""
    assert decode(of_scans(100, tail=b"\xff\xda" * 200), SAME_SIZE).shape == (4, 6, 3)
    with pytest.raises(PictureUndecodableError, match="more than 100 scans"):
        decode(of_scans(101), SAME_SIZE)
    with pytest.raises(PictureUndecodableError, match="more than 100 scans"):
        decode(of_scans(100_000), SAME_SIZE)
    with pytest.raises(PictureUndecodableError, match="more than 100 scans"):
        decode(of_scans(101, between=b"garbage\xff\x00\xff\xd3\xff\xff"), SAME_SIZE)


def test_an_ordinary_progressive_jpeg_is_a_picture():
    encoded = encode(noise(320, 240), "JPEG", progressive=True, restart_marker_blocks=3)
    assert decode(encoded, SAME_SIZE).shape == (4, 6, 3)


def test_too_many_bytes_are_refused_unread():
    with pytest.raises(PictureTooLargeError) as caught:
        decode(b"x" * 101, SAME_SIZE, Limits(max_bytes=100))
    assert (caught.value.byte_count, caught.value.pixel_count) == (101, None)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP"]),
    cuts=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=6),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damage that it can live with
def test_damaged_bytes_give_an_array_or_a_picture_error(seed, cuts):
    """Nothing else may escape, whatever the damage."""
    encoded = bytearray(encode(noise(16, 12), seed))
    for at, patch in cuts:
        at %= len(encoded)
        encoded[at : at + len(patch)] = patch
    try:
        array = decode(bytes(encoded), SAME_SIZE, Limits(max_pixels=100_000))
    except PictureError:
        return
    assert array.shape == (4, 6, 3)


SCALED = PixelSpec(resize=16, crop=(16, 16), scaled_decoding=True)
UNSCALED = SCALED.model_copy(update={"scaled_decoding": False})


def waves(width: int, height: int) -> Image.Image:
    """Smooth, so that leaving out high frequencies changes little; and not symmetric."""
    x, y = np.arange(width) / width, np.arange(height)[:, None] / height
    shades = [np.sin(5 * x + 2 * y), np.cos(7 * x * y), np.sin(3 * y) + 0 * x]
    return Image.fromarray(np.stack([(127 + 100 * shade) for shade in shades], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((640, 480), (80, 60)),  # an eighth, and still more than twice 16
        ((250, 300), (63, 75)),
        ((64, 64), (32, 32)),
        ((63, 63), (63, 63)),
        ((16, 16), (16, 16)),
        ((3, 2), (3, 2)),
        ((1, 1), (1, 1)),
    ],
)
def test_scaled_decoding_leaves_twice_the_target(monkeypatch, size, decoded):
    sizes = []
    decoded_by = jpeg.decoded
    monkeypatch.setattr(jpeg, "decoded", lambda picture, data: sizes.append(picture.size) or decoded_by(picture, data))
    encoded = encode(waves(*size), "JPEG", quality=95)
    array = decode(encoded, SCALED)
    assert sizes[0] == decoded
    difference = np.abs(array.astype(int) - decode(encoded, UNSCALED)).max()
    assert difference == 0 if size == decoded else difference < 12


def test_scaled_decoding_looks_at_both_sides(monkeypatch):
    sizes = []
    decoded_by = jpeg.decoded
    monkeypatch.setattr(jpeg, "decoded", lambda picture, data: sizes.append(picture.size) or decoded_by(picture, data))
    decode(encode(waves(400, 100), "JPEG"), PixelSpec(resize=(20, 30), crop=(20, 30), scaled_decoding=True))
    assert sizes[0] == (200, 50)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", [16, (12, 20)])
def test_scaled_decoding_knows_which_way_is_up(orientation, resize):
    scaled, whole = (spec.model_copy(update={"resize": resize}) for spec in (SCALED, UNSCALED))
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(waves(403, 301), "JPEG", quality=95, exif=exif.tobytes())
    assert np.abs(decode(encoded, scaled).astype(int) - decode(encoded, whole)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_scaled_decoding_changes_no_other_format(kind):
    encoded = encode(noise(320, 240), kind)
    np.testing.assert_array_equal(decode(encoded, SCALED), decode(encoded, UNSCALED))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize("progressive", [False, True])
def test_scaled_decoding_of_every_kind_of_jpeg(mode, color, progressive):
    encoded = encode(waves(320, 240).convert(mode), "JPEG", quality=95, progressive=progressive)
    scaled, whole = (decode(encoded, spec.model_copy(update={"color": color})) for spec in (SCALED, UNSCALED))
    assert scaled.shape == whole.shape
    assert np.abs(scaled.astype(int) - whole).max() < 12


def test_scaled_decoding_of_a_picture_with_a_preview():
    """Phones append a second picture; Pillow then calls the format MPO."""
    encoded = encode(waves(320, 240), "MPO", save_all=True, append_images=[waves(32, 24)])
    assert np.abs(decode(encoded, SCALED).astype(int) - decode(encoded, UNSCALED)).max() < 12


def test_scaled_decoding_does_not_widen_the_limits():
    encoded = encode(waves(320, 240), "JPEG")
    with pytest.raises(PictureTooLargeError):
        decode(encoded, SCALED, Limits(max_pixels=320 * 240 - 1))
    with pytest.raises(PictureUndecodableError):
        decode(encoded[:-300], SCALED)


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_grey_pictures_are_what_they_are_as_rgb(mode, interpolation):
    """They are resized as one channel."""
    grey = noise(50, 40).convert("L")
    stored = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8) if mode == "I;16" else grey.convert(mode)
    spec = PixelSpec(resize=20, crop=(22, 18), interpolation=interpolation)
    as_rgb = encode((grey if mode == "I;16" else stored).convert("RGB"))
    np.testing.assert_array_equal(decode(encode(stored), spec), decode(as_rgb, spec))


@pytest.mark.parametrize("vector", json.loads((VECTORS / "vectors.json").read_text()), ids=lambda v: v["file"])
def test_published_vectors(vector):
    """Other implementations, and other Pillow builds, can check themselves against these."""
    array = decode((VECTORS / vector["file"]).read_bytes(), PixelSpec.model_validate(vector["pixels"]))
    assert list(array.shape) == vector["shape"]
    assert sha256(array.tobytes()).hexdigest() == vector["sha256"]
