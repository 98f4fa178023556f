"""A picture without its metadata: where and when it was taken, by what and by whom, thumbnails, whatever lies behind
its end. Its pixels stay bit for bit what `taxon.bundle.pixels` makes of them: nothing is decoded, parts of the file are
left out. Colour profiles go too: Taxon never applies them, and they name devices.

Without Pillow, see `orientation`.
"""

from itertools import count
from typing import NamedTuple

from taxon.bundle import png_chunks, webp_chunks
from taxon.feedback import orientation
from taxon.feedback.stripped_jpeg import without_segments
from taxon.feedback.stripped_png import without_chunks
from taxon.feedback.unstrippable import UnstrippableError, counted

WEBP_KEPT = (b"VP8X", b"ALPH", b"ANIM", *webp_chunks.PIXELS)
GIF_IMAGE, GIF_EXTENSION, GIF_TRAILER = 0x2C, 0x21, 0x3B
MOST_BLOCKS = 200_000
"""Of a GIF, which has at most 255 bytes in each."""
GIF_CONTROL = 0xF9
"""The only extension that decides pixels: transparency (GIF89a, section 23)."""


class Stripped(NamedTuple):
    """A picture that may be kept."""

    extension: str
    """Of its file: `jpg`, `png`, `webp`, `gif`."""
    content: bytes


def stripped(encoded: bytes) -> Stripped:
    """The picture without metadata.

    Raises:
        UnstrippableError: It is none of the formats that are served, or its parts cannot be told apart.
    """
    if encoded.startswith(b"\xff\xd8"):
        return Stripped("jpg", without_segments(encoded))
    if encoded.startswith(png_chunks.SIGNATURE):
        return Stripped("png", without_chunks(encoded))
    if webp_chunks.is_webp(encoded):
        return Stripped("webp", _webp(encoded))
    if encoded.startswith((b"GIF87a", b"GIF89a")):
        return Stripped("gif", _gif(encoded))
    raise UnstrippableError("the bytes are not a JPEG, PNG, WebP or GIF picture")


def _webp(encoded: bytes) -> bytes:
    kept: list[tuple[bytes, bytes]] = []
    metadata: dict[bytes, bytes] = {}
    # A tail that broke off is left out: if it held pixels, the picture was never decoded.
    for kind, content in counted(webp_chunks.chunks(encoded)):
        if kind in WEBP_KEPT:
            kept.append((kind, content))
        else:
            metadata.setdefault(kind, content)
    if not any(kind in webp_chunks.PIXELS for kind, _ in kept):
        raise UnstrippableError("the WebP picture has no whole pixels")
    if kept[0][0] == b"VP8X" and kept[0][1]:
        kept = _webp_announced(kept, metadata)
    return webp_chunks.joined(kept)


def _webp_announced(kept: list[tuple[bytes, bytes]], metadata: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """With a header that announces what is there. What it did not announce, decoders did not see."""
    header = kept[0][1]
    exif, xmp = (metadata.get(kind) if header[0] & webp_chunks.FLAGS[kind] else None for kind in (b"EXIF", b"XMP "))
    turned = orientation.stated(exif, xmp)
    flags = header[0] & ~sum(webp_chunks.FLAGS.values())
    if turned != orientation.UPRIGHT:
        flags |= webp_chunks.FLAGS[b"EXIF"]
        kept = [*kept, (b"EXIF", orientation.tiff(turned))]
    return [(b"VP8X", bytes([flags]) + header[1:]), *kept[1:]]


def _gif(encoded: bytes) -> bytes:
    """Blocks as in GIF89a, section 12 and following."""
    blocks = counted(count(), MOST_BLOCKS)
    try:
        at = 13 + _gif_colors(encoded[10])
        kept = [encoded[:at]]
        while encoded[at] != GIF_TRAILER:
            start = at
            if encoded[at] == GIF_IMAGE:
                at += 10 + _gif_colors(encoded[at + 9]) + 1
            elif encoded[at] == GIF_EXTENSION:
                at += 2
            else:
                raise UnstrippableError("the GIF picture has a block of no known kind")
            while encoded[at]:
                at += 1 + encoded[at]
                next(blocks)
            at += 1
            next(blocks)
            if encoded[start] == GIF_IMAGE or encoded[start + 1] == GIF_CONTROL:
                kept.append(encoded[start:at])
    except IndexError:
        raise UnstrippableError("the GIF picture breaks off") from None
    return b"".join(kept) + bytes([GIF_TRAILER])


def _gif_colors(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
