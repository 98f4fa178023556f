"""The pixels of an encoded picture as its header states them, without decoding and without Pillow: what reads hostile
bytes in C does so in workers, never in a front.
"""

LARGE_PIXELS = 2_000_000
"""Decoding more takes several times as long as running a model: such pictures must not make others wait."""
# SOF0 to SOF15, without DHT, JPG and DAC, which lie among them.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM and RST0 to RST7.
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
Encoded = bytes | memoryview


def is_large(encoded: Encoded) -> bool:
    """Whether a picture may be large. One whose size cannot be told may be; if it is damaged, that is known soon."""
    count = header_pixels(encoded)
    return count is None or count > LARGE_PIXELS


def header_pixels(encoded: Encoded) -> int | None:
    """Width times height of a JPEG, PNG, GIF or WebP; None if the header does not tell, 0 if it is none of these."""
    start = bytes(encoded[:30])
    if start[:2] == b"\xff\xd8":
        return _jpeg_pixels(encoded)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return _product(start[16:20], start[20:24], "big") if start[12:16] == b"IHDR" else None
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return _product(start[6:8], start[8:10], "little")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _webp_pixels(start)
    return 0


def _product(width: bytes, height: bytes, order: str) -> int | None:
    if not width or not height:
        return None
    return int.from_bytes(width, order) * int.from_bytes(height, order)  # type: ignore[arg-type]


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
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
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
