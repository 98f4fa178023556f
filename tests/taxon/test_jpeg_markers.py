"""From marker to marker, whatever the bytes between them look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxon.bundle.jpeg_markers import SOS, segments

START = b"\xff\xd8"
APP0 = b"\xff\xe0\x00\x05abc"
SCAN = b"\xff\xda\x00\x04\x01\x02"


@pytest.mark.parametrize(
    "between",
    [b"", b"garbage", b"\xff\x00", b"\xff\xd3", b"\xff\xff\xff", b"\x00\xff\x00\xff\xd0\xff\xd7\xff"],
    ids=["nothing", "garbage", "a stuffed zero", "a restart", "fill bytes", "all"],
)
def test_every_segment_is_found_where_it_is(between):
    encoded = START + between + APP0 + between + SCAN + between + b"\xff\xd9" + SCAN
    found = list(segments(encoded))
    assert [(marker, encoded[start + 2 : end]) for marker, start, end in found] == [(0xE0, b"abc"), (SOS, b"\x01\x02")]


def test_what_a_segment_holds_is_no_marker():
    thumbnail = b"\xff\xe1\x00\x0a" + SCAN + b"\xff\xd9"
    assert [marker for marker, _, _ in segments(START + thumbnail + SCAN)] == [0xE1, SOS]


@pytest.mark.parametrize("length", [b"\x00\x00", b"\x00\x01"])
def test_a_length_without_itself_ends_no_walk(length):
    encoded = START + b"\xff\xe0" + length + SCAN
    assert [marker for marker, _, _ in segments(encoded)] == [0xE0, SOS]


def test_a_segment_that_breaks_off_ends_where_it_says():
    assert list(segments(START + APP0[:-1])) == [(0xE0, 4, 9)]
    assert list(segments(START + b"\xff\xe0")) == [(0xE0, 4, 4)]


@given(st.binary(max_size=200))
def test_every_walk_goes_forward(content):
    starts = [start for _, start, _ in segments(START + content)]
    assert starts == sorted(set(starts))
