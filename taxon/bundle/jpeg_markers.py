"""A JPEG file from marker to marker, as decoders walk it (ITU T.81, annex B). Whatever lies between is passed over."""

import re
from collections.abc import Iterator

SOS, EOI = 0xDA, 0xD9
NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In a scan's data 0xFF is followed by 0 or by the number of a restart; any number of 0xFF may precede a marker."""


def segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where its segment starts, where it ends) of each up to EOI, without SOI.

    A segment starts with its length, two bytes that count themselves. It may say less than two, or more than is there:
    the end is what it says.
    """
    at = 2
    while (found := NEXT.search(encoded, at)) and (marker := encoded[found.start() + 1]) != EOI:
        start = found.end()
        at = start + int.from_bytes(encoded[start : start + 2])
        yield marker, start, at
