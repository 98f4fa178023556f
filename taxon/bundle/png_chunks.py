"""A PNG file from chunk to chunk (PNG, 3rd edition, section 5), taken apart and made."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""Chunks that may be left out by their name, and yet are pixels: transparency, animation."""


def chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where it starts, where it ends) of each, behind the signature. The last may break off: the end is what it
    says, and less than the shortest chunk has four zeros for its kind.
    """
    at = len(SIGNATURE)
    while at < len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at) if at + 12 <= len(encoded) else (0, bytes(4))
        yield kind, at, at + 12 + length
        at += 12 + length


def is_needed(kind: bytes) -> bool:
    """Whether decoders need a chunk of this kind for the pixels."""
    return not kind[0] & 0x20 or kind in NEEDED


def chunk(kind: bytes, content: bytes) -> bytes:
    """One, whole."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
