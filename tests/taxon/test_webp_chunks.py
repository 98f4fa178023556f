"""From chunk to chunk, whole files and what is left of some."""

from io import BytesIO

import pytest
from PIL import Image

from taxon.bundle.webp_chunks import FLAGS, chunks, is_webp, joined


@pytest.fixture
def encoded():
    file = BytesIO()
    Image.new("RGB", (3, 2)).save(file, "WEBP", lossless=True, exif=b"Exif\0\0odd", xmp=b"<x/>", icc_profile=b"profile")
    return file.getvalue()


def test_files_are_written_as_others_write_them(encoded):
    parts = [*chunks(encoded)]
    assert is_webp(encoded)
    assert {kind for kind, _ in parts} == {b"VP8X", b"VP8L", *FLAGS}
    assert dict(parts)[b"VP8X"][0] & sum(FLAGS.values()) == sum(FLAGS.values())
    assert joined(parts) == encoded


def test_what_is_not_whole_is_left_out(encoded):
    whole = [*chunks(encoded)]
    assert [*chunks(encoded[:-2])] == whole[:-1]
    assert [*chunks(encoded + b"more")] == whole
    assert [*chunks(encoded[:15])] == []
