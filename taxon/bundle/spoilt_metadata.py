"""Pictures without the metadata that Pillow would refuse them for: PNG's text and colour profiles that inflate to more
than it allows, damaged chunks and segments that no pixel needs, a tail of a WebP that broke off behind its pixels. A
picture that decodes is not sunk by what is written beside it.

Everything else stays byte for byte, so that no other picture changes.
"""

import zlib

from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

from taxon.bundle import png_chunks, webp_chunks
from taxon.bundle.jpeg_markers import SOS, segments

SHORTEST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
SHORTEST_SEGMENT = 7
"""Pillow reads so much of a JPEG's JFIF and Adobe segments, decoders nothing of shorter ones."""


def mended(encoded: bytes) -> bytes:
    """A JPEG or WebP that Pillow did not open, without what may be the reason; or the same bytes."""
    if encoded.startswith(b"\xff\xd8"):
        return _mended_jpeg(encoded)
    if webp_chunks.is_webp(encoded):
        return _mended_webp(encoded)
    return encoded


def _mended_jpeg(encoded: bytes) -> bytes:
    """Without JFIF and Adobe segments that are too short to say anything."""
    kept, at = [encoded[:2]], 2
    for marker, start, end in segments(encoded):
        if marker == SOS:
            break
        content = encoded[start + 2 : end]
        if not (content.startswith((b"JFIF", b"Adobe")) and len(content) < SHORTEST_SEGMENT):
            kept.append(encoded[at:end])
        at = end
    return b"".join(kept) + encoded[at:]


def _mended_webp(encoded: bytes) -> bytes:
    """Up to the first chunk that is not whole, if the pixels are."""
    whole = [*webp_chunks.chunks(encoded)]
    contents = dict(whole)
    if not any(kind in contents for kind in webp_chunks.PIXELS):
        return encoded
    if header := contents.get(b"VP8X"):
        flags = header[0] & ~sum(flag for kind, flag in webp_chunks.FLAGS.items() if kind not in contents)
        header = bytes([flags]) + header[1:]
        whole = [(kind, header if kind == b"VP8X" else content) for kind, content in whole]
    return webp_chunks.joined(whole)


def without_spoilt_metadata(encoded: bytes) -> bytes:
    """A PNG without such chunks. What is no PNG, or has none, is returned as it is."""
    if not encoded.startswith(png_chunks.SIGNATURE):
        return encoded
    kept, texts, whole = [png_chunks.SIGNATURE], 0, True
    for kind, start, end in png_chunks.chunks(encoded):
        if not png_chunks.is_needed(kind):
            # Once there are as many texts as Pillow takes, no further one is inflated; one that is too long has cost as
            # much as a long one.
            spoilt = _is_spoilt(kind, encoded[start:end]) or texts > MAX_TEXT_MEMORY
            length = None if spoilt else _text_length(kind, encoded[start + 8 : end - 4])
            texts += MAX_TEXT_CHUNK if length is None and not spoilt else length or 0
            if length is None or texts > MAX_TEXT_MEMORY:
                whole = False
                continue
        kept.append(encoded[start:end])
    return encoded if whole else b"".join(kept)


def _is_spoilt(kind: bytes, chunk: bytes) -> bool:
    length = int.from_bytes(chunk[:4])
    if len(chunk) != length + 12 or length < SHORTEST.get(kind, 0):
        return True
    return zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:])


def _text_length(kind: bytes, content: bytes) -> int | None:
    """Bytes of a text or profile, inflated; 0 of anything else, None if it is spoilt or too long."""
    if kind == b"tEXt":
        return len(content)
    if kind in (b"zTXt", b"iCCP"):
        _, _, rest = content.partition(b"\0")
        return _inflated_length(rest[1:]) if rest[:1] == b"\0" else None
    if kind == b"iTXt":
        _, _, rest = content.partition(b"\0")
        if rest[:1] != b"\1":
            return len(content)
        text = rest[2:].split(b"\0", 2)
        return _inflated_length(text[2]) if rest[1:2] == b"\0" and len(text) > 2 else 0
    return 0


def _inflated_length(packed: bytes) -> int | None:
    try:
        text = zlib.decompressobj().decompress(packed, MAX_TEXT_CHUNK + 1)
    except zlib.error:
        return 0  # Pillow takes it for none
    return None if len(text) >= MAX_TEXT_CHUNK else len(text)
