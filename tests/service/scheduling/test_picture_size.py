"""Sizes told from headers, compared with what Pillow finds when it opens the same bytes."""

import struct
import subprocess
import sys
import time
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from taxon.bundle.picture_limits import Limits
from taxon.bundle.png_chunks import chunk
from taxon.service.scheduling.memory import memory
from taxon.service.scheduling.picture_size import LARGE_PIXELS, header_pixels

LARGE = 3000, 2000
SMALL = 300, 201
MEMORY = memory(2**40, Limits(), 2**26)


def is_large(encoded):
    return MEMORY.to_decode(encoded) > 0


def written(form, size=SMALL, mode="RGB", **options):
    file = BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def exif(orientation=6):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def pixels_by_pillow(encoded):
    with Image.open(BytesIO(encoded)) as opened:
        opened.load()
        return opened.size[0] * opened.size[1]


KINDS = {
    "JPEG": {},
    "JPEG grey": {"mode": "L"},
    "JPEG progressive": {"progressive": True},
    "JPEG with EXIF": {"exif": exif()},
    "JPEG with a profile of several segments": {"icc_profile": bytes(70_000)},
    "JPEG with a comment": {"comment": b"\xff\xc0 no frame header"},
    "PNG": {},
    "PNG interlaced palette": {"mode": "P"},
    "PNG with EXIF": {"exif": exif()},
    "GIF": {"mode": "P"},
    "GIF with a comment": {"mode": "P", "comment": b"," * 5000},
    "GIF animated": {"mode": "P", "save_all": True, "append_images": [Image.new("P", SMALL, 1)], "loop": 0},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "WEBP with EXIF": {"exif": exif()},
    "WEBP with transparency": {"mode": "RGBA"},
}
FIRST_CHUNKS = {
    "WEBP": b"VP8 ",
    "WEBP lossless": b"VP8L",
    "WEBP with EXIF": b"VP8X",
    "WEBP with transparency": b"VP8L",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), SMALL, (1201, 1667)])
def test_the_size_is_what_pillow_says(kind, size):
    encoded = written(kind.split()[0], size, **KINDS[kind])
    assert header_pixels(encoded) == pixels_by_pillow(encoded) == size[0] * size[1]
    assert header_pixels(memoryview(encoded)) == size[0] * size[1]
    assert is_large(encoded) == (size[0] * size[1] > LARGE_PIXELS)


@pytest.mark.parametrize("kind", FIRST_CHUNKS)
def test_all_three_kinds_of_webp_are_among_them(kind):
    first = written("WEBP", **KINDS[kind])[12:16]
    assert first == FIRST_CHUNKS[kind] or (kind == "WEBP with transparency" and first == b"VP8X")


def header_length(encoded):
    return next(length for length in range(len(encoded) + 1) if header_pixels(encoded[:length]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_is_cut_off_tells_nothing_and_counts_as_large(kind):
    encoded = written(kind.split()[0], **KINDS[kind])
    told_at = header_length(encoded)
    for length in range(12, told_at):  # with less nobody can say what it is
        assert header_pixels(encoded[:length]) is None
        assert is_large(encoded[:length])
    assert header_pixels(encoded[:told_at]) == SMALL[0] * SMALL[1]


@pytest.mark.parametrize("encoded", [b"", b"GIF", b"BM" + bytes(60), b"no picture at all, but text of some length"])
def test_what_is_no_picture_is_not_large(encoded):
    assert header_pixels(encoded) == 0
    assert not is_large(encoded)


# Large pictures that would like to be small


@pytest.mark.parametrize("marker", [b"\xff\x01", *(bytes([0xFF, 0xD0 + number]) for number in range(8)), b"\xff"])
def test_markers_without_a_length_hide_no_large_jpeg(marker):
    """TEM, restarts and fill bytes may stand before the frame header."""
    encoded = written("JPEG", LARGE)
    for count in (1, 5):
        assert header_pixels(encoded[:2] + marker * count + encoded[2:]) == LARGE[0] * LARGE[1]
    small = written("JPEG")
    header = small[small.index(b"\xff\xc0") :][:19]
    disguised = marker + b"\x00\x04ab" + header  # as if it had a length, and a header of a small picture behind it
    assert is_large(encoded[:2] + disguised + encoded[2:])


def test_a_markers_missing_segment_hides_no_large_jpeg():
    encoded = written("JPEG", LARGE)
    assert is_large(encoded[:2] + b"junk" + encoded[2:])


def test_of_two_headers_of_a_png_the_one_that_is_decoded_counts():
    encoded = written("PNG", LARGE, "L")
    forged = encoded[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + encoded[8:]
    assert pixels_by_pillow(forged) == LARGE[0] * LARGE[1]
    assert is_large(forged)


def test_a_gif_whose_picture_is_larger_than_its_screen_counts_as_its_picture():
    encoded = bytearray(written("GIF", LARGE, "L"))
    encoded[6:10] = struct.pack("<HH", 1, 1)
    assert pixels_by_pillow(bytes(encoded)) == LARGE[0] * LARGE[1]
    assert is_large(bytes(encoded))


def test_a_gif_whose_extension_begins_with_its_end_may_be_large():
    """Decoders differ in where it ends."""
    encoded = written("GIF", LARGE, "L")
    at = 13 + 3 * 256
    assert is_large(encoded[:at] + b"\x21\xfe\x00" + encoded[at:])


# Bytes that would like to take long


def shortest_s(encoded):
    """Of a few tries: what else the machine does only ever adds."""
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        header_pixels(encoded)
        spent.append(time.perf_counter() - began)
    return min(spent)


def compressed_text():
    """60 kB that become 60 MB when they are opened."""
    encoded = written("PNG", mode="L")
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000)))
    return encoded[:33] + text * 60 + encoded[33:]


LONG_WALKS = {
    "60 compressed texts": compressed_text(),
    "fill bytes": b"\xff\xd8" + b"\xff" * 8_000_000,
    "restarts": b"\xff\xd8" + b"\xff\xd0" * 4_000_000,
    "empty segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 2_000_000,
    "empty chunks": written("PNG")[:33] + chunk(b"tEXt", b"") * 600_000,
    "sub-blocks": b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01x" * 4_000_000,
    "extensions": b"GIF89a" + bytes(7) + b"\x21\xfe\x01x\x00" * 1_600_000,
}


@pytest.mark.parametrize("kind", LONG_WALKS)
def test_no_bytes_hold_the_event_loop_up(kind):
    assert shortest_s(LONG_WALKS[kind]) < 0.005


def test_compressed_text_does_not_hide_the_size():
    assert header_pixels(LONG_WALKS["60 compressed texts"]) == SMALL[0] * SMALL[1]


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP"]))
def test_no_bytes_are_an_error(noise, beginning):
    count = header_pixels(beginning + noise)
    assert count is None or count >= 0


def test_pillow_is_not_needed():
    program = (
        "import sys\n"
        "sys.modules['PIL'] = None\n"
        "from taxon.service.scheduling.memory import memory\n"
        "from taxon.service.scheduling.picture_size import header_pixels\n"
        "assert header_pixels(bytes.fromhex(sys.argv[1])) == 300 * 201\n"
    )
    words = [sys.executable, "-c", program, written("PNG").hex()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
