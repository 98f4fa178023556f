"""The pixels of an encoded picture as its header states them, without decoding and without Pillow: what reads hostile
bytes in C does so in workers, never in a front.
"""

LARGE_PIXELS = 2_000_000
"""Decoding more takes several times as long as running a model: such pictures must not make others wait."""
# SOF0 to SOF15, without DHT, JPG and DAC, which lie among them.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and RST0 to RST7.
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
MOST_PARTS = 1000
"""Segments, chunks or blocks before the pixels. Pictures have a few dozen; walking millions would hold up a front."""
Encoded = bytes | memoryview


def header_pixels(encoded: Encoded) -> int | None:
    """Width times height of a JPEG, PNG, GIF or WebP; None if the header does not tell, 0 if it is none of these."""
    start = bytes(encoded[:30])
    if start[:2] == b"\xff\xd8":
        return _jpeg_pixels(encoded)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_pixels(encoded)
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return _gif_pixels(encoded)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp_pixels(start)
    return 0


def _png_pixels(encoded: Encoded) -> int | None:
    """Walks the chunks up to the pixels (PNG, 3rd edition, section 5): of two headers decoders believe the last."""
    at, count = 8, None
    for _ in range(MOST_PARTS):
        kind = encoded[at + 4 : at + 8]
        if kind == b"IDAT":
            return count
        if kind == b"IHDR" and at + 16 <= len(encoded):
            count = int.from_bytes(encoded[at + 8 : at + 12]) * int.from_bytes(encoded[at + 12 : at + 16])
        elif count is None or len(kind) < 4:
            return None
        at += 12 + int.from_bytes(encoded[at : at + 4])
    return None


def _gif_pixels(encoded: Encoded) -> int | None:
    """Walks the blocks up to the first picture (GIF89a, section 20): decoders enlarge the screen to hold it."""
    if len(encoded) < 13:
        return None
    width, height = _two(encoded, 6), _two(encoded, 8)
    at, in_extension = 13 + _color_bytes(encoded[10]), False
    for _ in range(MOST_PARTS):
        if at + 10 > len(encoded):
            return None
        if in_extension:  # of sub-blocks, the last one empty
            in_extension, at = encoded[at] != 0, at + 1 + encoded[at]
        elif encoded[at] == 0x2C:
            left, top, wide, high = (_two(encoded, at + offset) for offset in (1, 3, 5, 7))
            return max(width, left + wide) * max(height, top + high)
        elif encoded[at] == 0x21 and encoded[at + 2]:
            in_extension, at = True, at + 2
        else:
            return None
    return None


def _color_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _two(encoded: Encoded, at: int) -> int:
    return int.from_bytes(encoded[at : at + 2], "little")


def _webp_pixels(start: bytes) -> int | None:
    """Of the first chunk (RFC 9649, section 2)."""
    kind = start[12:16]
    if len(start) < 30:
        return None
    if kind == b"VP8 ":
        width, height = (int.from_bytes(start[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return width * height
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        width, height = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
        return width * height
    return None


def _jpeg_pixels(encoded: Encoded) -> int | None:
    """Walks a JPEG's segments to its frame header (ITU T.81, annex B); a fifth of the time that Pillow takes to
    open one, which every call would pay.
    """
    at = 2
    for _ in range(MOST_PARTS):
        if at + 9 > len(encoded) or encoded[at] != 0xFF:
            return None
        marker = encoded[at + 1]
        if marker in FRAME_HEADERS:
            return int.from_bytes(encoded[at + 5 : at + 7]) * int.from_bytes(encoded[at + 7 : at + 9])
        if marker == 0xFF:
            at += 1
        elif marker in STANDALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return None
