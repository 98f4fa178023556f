"""Pictures lose their metadata and not one bit of their pixels."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode, load, open_picture
from taxon.bundle.pixels import orientation as orientation_of
from taxon.feedback import orientation
from taxon.feedback.stripped import stripped
from taxon.feedback.unstrippable import UnstrippableError

SPEC = PixelSpec(resize=16, crop=(16, 16))
SECRET = b"GPS 52.5200 N, Canon, Jane Doe"
XMP = b'<x tiff:Orientation="%d"/>' + SECRET


def noise(mode="RGB", size=(40, 24)):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.fromarray(values, mode)


def exif(turn):
    said = Image.Exif()
    said[0x0112] = turn
    said[0x010E] = SECRET.decode()
    said[0x8825] = {1: "N", 29: SECRET.decode()}
    return said.tobytes()


def encoded(picture, form, **options):
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def texts(*pairs, packed=False):
    info = PngInfo()
    for key, text in pairs:
        info.add_itxt(key, text, zip=packed) if key.startswith("XML") else info.add_text(key, text, zip=packed)
    return info


def raw_exif(turn):
    content = b"Exif\x00\x00" + orientation.tiff(turn)
    return f"\nexif\n{len(content):8}\n{content.hex()}\n"


XMP6 = (XMP % 6).decode()
PICTURES = {
    "jpeg": encoded(noise(), "JPEG", exif=exif(6), comment=SECRET, icc_profile=SECRET * 10),
    "jpeg upright": encoded(noise(), "JPEG", exif=exif(1), dpi=(72, 72)),
    "jpeg by xmp": encoded(noise(), "JPEG", xmp=XMP % 8),
    "jpeg progressive": encoded(noise(size=(400, 300)), "JPEG", progressive=True, exif=exif(3)),
    "jpeg grey": encoded(noise("L"), "JPEG", exif=exif(5)),
    "jpeg cmyk": encoded(noise("CMYK"), "JPEG", exif=exif(2)),
    "jpeg rgb": encoded(noise(), "JPEG", keep_rgb=True, exif=exif(7)),
    "jpeg restarts": encoded(noise(size=(200, 100)), "JPEG", restart_marker_rows=1, exif=exif(4)),
    "jpeg with a tail": encoded(noise(), "JPEG") + SECRET,
    "jpeg without its end": encoded(noise(), "JPEG", exif=exif(6))[:-2],
    "png": encoded(noise("RGBA"), "PNG", exif=exif(6), pnginfo=texts(("Author", SECRET.decode())), dpi=(1, 1)),
    "png by xmp": encoded(noise(), "PNG", pnginfo=texts(("XML:com.adobe.xmp", XMP6))),
    "png by packed xmp": encoded(noise(), "PNG", pnginfo=texts(("XML:com.adobe.xmp", XMP6), packed=True)),
    "png by raw exif": encoded(noise(), "PNG", pnginfo=texts(("Raw profile type exif", raw_exif(6)), packed=True)),
    "png palette": encoded(noise().convert("P"), "PNG", transparency=3, icc_profile=SECRET),
    "png with a tail": encoded(noise("L"), "PNG") + SECRET,
    "apng": encoded(noise(), "PNG", save_all=True, append_images=[noise("L").convert("RGB")]),
    "webp": encoded(noise("RGBA"), "WEBP", exif=exif(6), xmp=XMP % 3, icc_profile=SECRET),
    "webp by xmp": encoded(noise(), "WEBP", lossless=True, xmp=XMP % 6),
    "webp simple": encoded(noise(), "WEBP"),
    "webp animated": encoded(noise(), "WEBP", save_all=True, append_images=[noise("L").convert("RGB")], exif=exif(6)),
    "gif": encoded(noise().convert("P"), "GIF", comment=SECRET, transparency=2),
    "gif animated": encoded(noise().convert("P"), "GIF", save_all=True, append_images=[noise("L")], loop=3) + SECRET,
}


CHUNK = b"\x00\x00\x00\x00teXt" + zlib.crc32(b"teXt").to_bytes(4)


@pytest.mark.parametrize("name", PICTURES)
def test_metadata_goes_and_pixels_stay(name):
    before = PICTURES[name]
    after = stripped(before)
    assert after.extension == name.split()[0].replace("jpeg", "jpg").replace("apng", "png")
    opened = [open_picture(BytesIO(content)) for content in (before, after.content)]
    assert orientation_of(opened[0]) == orientation_of(opened[1])
    opened = [
        load(picture, content, lambda _: None) for picture, content in zip(opened, (before, after.content), strict=True)
    ]
    assert opened[0].mode == opened[1].mode
    assert opened[0].tobytes() == opened[1].tobytes()
    assert np.array_equal(decode(before, SPEC), decode(after.content, SPEC))
    for word in (b"Jane", b"Canon", b"ICC_PROFILE", b"iCCP", b"xmp", b"pHYs"):
        assert word not in after.content
    assert stripped(after.content).content == after.content  # said again, nothing changes


def test_the_test_has_pictures_that_lie_on_their_side():
    assert [orientation_of(open_picture(BytesIO(PICTURES[f"{form}"]))) for form in ("jpeg", "png", "webp")] == [6, 6, 6]
    for name in ("jpeg by xmp", "png by xmp", "png by packed xmp", "png by raw exif", "webp by xmp"):
        assert orientation_of(open_picture(BytesIO(PICTURES[name]))) in (6, 8), name


def test_a_comment_between_two_scans_goes():
    before = PICTURES["jpeg progressive"]
    at = before.rindex(b"\xff\xda")
    spoken = before[:at] + b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2) + SECRET + before[at:]
    assert stripped(spoken).content == stripped(before).content


def test_spoilt_metadata_decides_nothing():
    chunk = struct.pack(">I", 20) + b"eXIf" + orientation.tiff(6)[:20] + bytes(4)
    plain = encoded(noise(), "PNG")
    spoilt = plain[:33] + chunk + plain[33:]
    assert stripped(spoilt).content == plain


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"GIF89a",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe1\xff\xff Exif",
        PICTURES["png"][:60],
        PICTURES["gif"][:40],
        b"RIFF\x04\x00\x00\x00WEBP",
        b"BM" + bytes(60),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000,
        PICTURES["png"][:33] + CHUNK * 20_000 + PICTURES["png"][33:],
        b"RIFF\xff\xff\xff\x00WEBP" + b"JUNK\x00\x00\x00\x00" * 20_000,
        b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01x" * 2_000_000,
    ],
)
def test_what_cannot_be_told_apart_is_refused(bad):
    with pytest.raises(UnstrippableError):
        stripped(bad)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"II\x2a\x00", b"MM\x00\x2a", b"II\x00\x2a", b"XX\x2a\x00"]),
    st.integers(0, 12),
    st.lists(
        st.tuples(
            st.sampled_from([0x0112, 0x010F]),
            st.integers(0, 17),
            st.integers(0, 3),
            st.sampled_from([6, 3, 0x00060000, 0x06000000, 9, 30]),
        ),
        max_size=2,
        unique_by=lambda entry: entry[0],  # of a tag that comes twice Pillow mixes the types
    ),
)
@pytest.mark.filterwarnings("ignore")
def test_the_orientation_is_what_pillow_reads(prefix, offset, entries):
    order = "<" if prefix[:1] == b"I" else ">"
    content = prefix + struct.pack(order + "L", offset) + struct.pack(order + "H", len(entries))
    content += b"".join(struct.pack(order + "HHLL", *entry) for entry in entries) + bytes(8)
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    plain = encoded(noise(), "PNG")
    png = plain[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + plain[33:]
    theirs = orientation_of(open_picture(BytesIO(png)))
    assert orientation.stated(content, None) == (theirs if theirs in range(1, 9) else 1)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(PICTURES)), st.data())
def test_hostile_bytes_are_stripped_or_refused(name, data):
    content = bytearray(PICTURES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UnstrippableError):
        stripped(bytes(content[: data.draw(st.integers(1, len(content)))]))


def test_thousands_of_segments_take_no_time():
    """Each of them would be joined to all before it."""
    segment = b"\xff\xe1" + (900).to_bytes(2) + b"Exif\x00\x00" + bytes(892)
    plain = PICTURES["jpeg upright"]
    assert stripped(plain[:2] + segment * 9_000 + plain[2:]).content == stripped(plain).content
