"""From chunk to chunk, whole files and what is left of some."""

from io import BytesIO

import pytest
from PIL import Image

from taxon.bundle.png_chunks import SIGNATURE, chunk, chunks, is_needed

FILE = SIGNATURE + chunk(b"tEXt", b"a\0b") + chunk(b"IEND", b"")


def test_every_chunk_is_found_where_it_is():
    assert [(kind, FILE[start + 8 : end - 4]) for kind, start, end in chunks(FILE)] == [
        (b"tEXt", b"a\0b"),
        (b"IEND", b""),
    ]


@pytest.mark.parametrize("missing", range(1, 12))
def test_less_than_the_shortest_chunk_has_no_kind(missing):
    assert [*chunks(FILE[:-missing])] == [(b"tEXt", 8, 23), (bytes(4), 23, 35)]


def test_a_chunk_that_breaks_off_ends_where_it_says():
    assert [*chunks(FILE[:22])] == [(b"tEXt", 8, 23)]


def test_chunks_are_written_as_others_write_them():
    file = BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    encoded = file.getvalue()
    assert encoded.endswith(chunk(b"IEND", b""))
    rebuilt = [chunk(kind, encoded[start + 8 : end - 4]) for kind, start, end in chunks(encoded)]
    assert SIGNATURE + b"".join(rebuilt) == encoded


def test_transparency_and_animation_are_pixels():
    assert [kind for kind in (b"IHDR", b"IDAT", b"tRNS", b"fdAT", b"tEXt", b"eXIf") if is_needed(kind)] == [
        *(b"IHDR", b"IDAT", b"tRNS", b"fdAT")
    ]
