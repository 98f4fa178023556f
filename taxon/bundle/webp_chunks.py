"""A WebP file from chunk to chunk (RFC 9649, section 2), taken apart and made."""

import struct
from collections.abc import Iterable, Iterator

PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Bits of the header VP8X that announce metadata."""


def is_webp(encoded: bytes) -> bool:
    """Whether it begins as one."""
    return encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP"


def chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each, up to the first that is not whole."""
    at = 12
    while at + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, at)
        if at + 8 + length > len(encoded):
            return
        yield kind, encoded[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def joined(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A file of these, kind and content."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for kind, content in parts
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body
