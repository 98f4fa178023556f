"""Pictures that decode although something beside their pixels is spoilt; and those of which pixels are missing."""

import contextlib
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from taxon.bundle import spoilt_metadata
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import PictureUndecodableError
from taxon.bundle.pixels import decode, open_picture
from taxon.training.dataset.data import Fault, Sample
from taxon.training.dataset.scan_pictures import look

SPEC = PixelSpec(resize=(48, 64), crop=(48, 64))
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def png(*chunks: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = (), crc: int = 0) -> bytes:
    """A picture with more chunks before and after its pixels; `crc` is added to the right one."""
    encoded = BytesIO()
    Image.fromarray(PIXELS).save(encoded, "PNG")
    plain = encoded.getvalue()
    end = plain.index(b"IEND") - 4

    def packed(kind: bytes, content: bytes) -> bytes:
        check = (zlib.crc32(kind + content) + crc) % 2**32
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    first, last = (b"".join(packed(*chunk) for chunk in some) for some in (chunks, after))
    return plain[:33] + first + plain[33:end] + last + plain[end:]


LONG = zlib.compress(b"x" * 3 * 2**20)
SPOILT = {
    "compressed international text": (b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "compressed text": (b"zTXt", b"Comment\0\0" + LONG),
    "colour profile": (b"iCCP", b"icc\0\0" + LONG),
    "profile of another method": (b"iCCP", b"icc\0\7" + zlib.compress(b"x")),
    "text of another method": (b"zTXt", b"Comment\0\7" + zlib.compress(b"x")),
    "gamma": (b"gAMA", b"\0"),
    "chromaticities": (b"cHRM", b"\0" * 8),
    "rendering intent": (b"sRGB", b""),
    "density": (b"pHYs", b"\0" * 4),
    "EXIF": (b"eXIf", b"nonsense"),
    "unknown": (b"abCd", b"nonsense"),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", SPOILT)
def test_metadata_that_no_pixel_needs_never_sinks_a_png(kind, where):
    encoded = png(SPOILT[kind]) if where == "before" else png(after=(SPOILT[kind],))
    np.testing.assert_array_equal(decode(encoded, SPEC), PIXELS)


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME", b"gAMA"])
def test_a_wrong_checksum_of_metadata_does_not_matter(kind):
    np.testing.assert_array_equal(decode(png((kind, b"a\0" + bytes(40)), crc=1), SPEC), PIXELS)


def test_many_texts_together_are_no_more_than_pillow_takes():
    text = b"Comment\0\0" + zlib.compress(b"x" * (2**20 - 2))
    np.testing.assert_array_equal(decode(png(*[(b"zTXt", text)] * 70), SPEC), PIXELS)


@pytest.mark.parametrize("size", [2**20 - 2, 2**22])
def test_no_more_is_inflated_than_pillow_takes(monkeypatch, size):
    """A small picture must not cost seconds by its texts, whether they are taken or not."""
    inflated = []
    length = spoilt_metadata._inflated_length
    monkeypatch.setattr(spoilt_metadata, "_inflated_length", lambda packed: inflated.append(1) or length(packed))
    text = b"Comment\0\0" + zlib.compress(b"x" * size)
    np.testing.assert_array_equal(decode(png(*[(b"zTXt", text)] * 500), SPEC), PIXELS)
    assert len(inflated) <= 66


def test_a_wrong_checksum_of_transparency_matters():
    with pytest.raises(PictureUndecodableError):
        decode(png((b"tRNS", bytes(6)), crc=1), SPEC)


def test_what_orients_a_png_is_kept():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>', zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    for options in ({"pnginfo": info}, {"exif": exif}):
        encoded = BytesIO()
        Image.fromarray(PIXELS).save(encoded, "PNG", **options)
        spoilt = encoded.getvalue()
        place = spoilt.index(b"IDAT") - 4
        chunk = b"Comment\0\0" + LONG
        packed = struct.pack(">I", len(chunk)) + b"zTXt" + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + chunk))
        np.testing.assert_array_equal(decode(spoilt[:place] + packed + spoilt[place:], SPEC), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30), b"", b"\xff" * 50]
)
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning", "ignore:Truncated File Read:UserWarning")
def test_spoilt_exif_sinks_no_format(form, exif):
    encoded = BytesIO()
    Image.fromarray(PIXELS).save(
        encoded, form, exif=exif, icc_profile=b"nonsense", **({"lossless": True} if form == "WEBP" else {})
    )
    assert decode(encoded.getvalue(), SPEC).shape == PIXELS.shape


SEGMENTS = {
    "JFIF": (0xE0, b"JFIF\0"),
    "JFIF of a byte": (0xE0, b"JFIF\0\1"),
    "Adobe": (0xEE, b"Adobe\0"),
    "flash": (0xE2, b"FPXR\0"),
    "several pictures": (0xE2, b"MPF\0II*\0nonsense"),
    "Photoshop": (0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0"),
    "profile": (0xE2, b"ICC_PROFILE\0\0\0x"),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<"),
    "comment": (0xFE, b""),
}


@pytest.mark.parametrize("place", [2, 20])
@pytest.mark.parametrize("fill", [b"", b"\xff\xff"], ids=["", "fill bytes"])
@pytest.mark.parametrize("kind", SEGMENTS)
@pytest.mark.filterwarnings("ignore:.*malformed MPO file:UserWarning")
def test_segments_that_say_nothing_sink_no_jpeg(tmp_path, kind, fill, place):
    whole = jpeg()
    marker, content = SEGMENTS[kind]
    segment = fill + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    spoilt = whole[:place] + segment + whole[place:]
    np.testing.assert_array_equal(decode(spoilt, SPEC), decode(whole, SPEC))
    (tmp_path / "0.jpg").write_bytes(spoilt)
    with open_picture(tmp_path / "0.jpg") as picture:
        assert picture.size == (64, 48)


def webp(**options: object) -> bytes:
    encoded = BytesIO()
    options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0", "xmp": b"<x/>" * 20, "icc_profile": b"x" * 41, **options}
    Image.fromarray(PIXELS).save(encoded, "WEBP", **options)
    return encoded.getvalue()


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"lossless": True, "icc_profile": None}])
def test_a_webp_that_breaks_off_behind_its_pixels_is_whole(options):
    whole = webp(**options)
    pixels, metadata = decode(whole, SPEC), len(whole) - whole.index(b"EXIF")
    for cut in range(1, metadata + 9):
        if cut <= metadata:
            np.testing.assert_array_equal(decode(whole[:-cut], SPEC), pixels)
            continue
        with contextlib.suppress(PictureUndecodableError):
            np.testing.assert_array_equal(decode(whole[:-cut], SPEC), pixels)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP "])
@pytest.mark.parametrize("length", [0, 1, 5, 2**31, 2**32 - 1])
def test_metadata_of_a_wrong_length_sinks_no_webp(kind, length):
    whole = webp(lossless=True)
    spoilt = bytearray(whole)
    struct.pack_into("<I", spoilt, whole.index(kind) + 4, length)
    np.testing.assert_array_equal(decode(bytes(spoilt), SPEC), decode(whole, SPEC))


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_of_no_format_are_pixels_made_up(form):
    """Whatever is cut off: refused, or the pixels of the whole file."""
    encoded = BytesIO()
    Image.fromarray(PIXELS).save(encoded, form, **({"lossless": True} if form == "WEBP" else {}))
    whole = encoded.getvalue()
    pixels, taken = decode(whole, SPEC), 0
    for cut in range(1, len(whole) - 50, 1 + len(whole) // 200):
        with contextlib.suppress(PictureUndecodableError):
            np.testing.assert_array_equal(decode(whole[:-cut], SPEC), pixels)
            taken += 1
    assert taken < 20


def test_the_size_of_a_file_is_read_past_spoilt_metadata(tmp_path):
    """By it the pictures' side is chosen for networks of ours."""
    (tmp_path / "0.png").write_bytes(png(SPOILT["compressed international text"]))
    with open_picture(tmp_path / "0.png") as picture:
        assert picture.size == (64, 48)


def jpeg(**options: object) -> bytes:
    encoded = BytesIO()
    smooth = np.asarray(Image.fromarray(PIXELS[:6, :8]).resize((64, 48), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(encoded, "JPEG", **options)
    return encoded.getvalue()


FORMS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "full colour": {"subsampling": 0},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_jpeg_without_its_end_marker_is_whole(tmp_path, form, scaled):
    whole = jpeg(**FORMS[form])
    spec = SPEC.model_copy(update={"scaled_decoding": scaled})
    for cut in (1, 2):
        np.testing.assert_array_equal(decode(whole[:-cut], spec), decode(whole, spec))
    (tmp_path / "cut.jpg").write_bytes(whole[:-2])
    assert not isinstance(look(Sample(tmp_path / "cut.jpg", 0)), Fault)


@pytest.mark.parametrize("form", FORMS)
def test_a_jpeg_of_which_pixels_are_missing_is_refused_or_right(form):
    """Whatever is cut off: never other pixels than those of the whole file."""
    whole = jpeg(**FORMS[form])
    pixels, taken = decode(whole, SPEC), 0
    for cut in range(1, len(whole) - 100, 1 if form != "full colour" else 7):
        try:
            decoded = decode(whole[:-cut], SPEC)
        except PictureUndecodableError:
            continue
        taken += 1
        np.testing.assert_array_equal(decoded, pixels)
    assert taken < 12


@pytest.mark.parametrize("form", FORMS)
def test_the_doctor_and_the_decoder_agree_on_what_is_cut_off(tmp_path, form):
    """Also where the doctor decodes the picture small, which hides much of what is missing."""
    encoded = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (640, 600, 3), np.uint8)).save(
        encoded, "JPEG", quality=30, **FORMS[form]
    )
    whole, verdicts = encoded.getvalue(), []
    for cut in (1, 2, 5, 63, 1000, len(whole) // 3, len(whole) // 2):
        (tmp_path / "cut.jpg").write_bytes(whole[:-cut])
        try:
            decode(whole[:-cut], SPEC)
        except PictureUndecodableError:
            verdicts.append(False)
        else:
            verdicts.append(True)
        assert isinstance(look(Sample(tmp_path / "cut.jpg", 0)), Fault) != verdicts[-1]
    assert verdicts[:2] == [True, True]
    assert verdicts[-3:] == [False] * 3


def test_a_progressive_jpeg_without_its_last_scan_is_refused():
    """What follows would have changed every pixel a little."""
    whole = jpeg(progressive=True)
    cut = whole[: whole.rindex(b"\xff\xda")]
    with pytest.raises(PictureUndecodableError, match="truncated"):
        decode(cut, SPEC)
