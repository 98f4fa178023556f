"""A PNG without the chunks that no pixel needs (PNG, 3rd edition, section 5)."""

import zlib
from contextlib import suppress

from taxon.bundle import png_chunks
from taxon.feedback import orientation
from taxon.feedback.unstrippable import UnstrippableError, counted

TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES = 2**20
"""Of a text once inflated: Pillow takes no longer ones."""
MAX_TEXTS_BYTES = 64 * MAX_TEXT_BYTES
"""Of all of them: what follows is not inflated, as by Pillow."""
XMP, RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"


def without_chunks(encoded: bytes) -> bytes:
    """The same pixels.

    Raises:
        UnstrippableError: It breaks off within a chunk, or has no pixels.
    """
    kept: list[bytes] = []
    exif: bytes | None = None
    texts: dict[bytes, bytes] = {}
    text_bytes = 0
    has_pixels = False
    for kind, start, end in counted(png_chunks.chunks(encoded)):
        if end > len(encoded):
            raise UnstrippableError("the PNG breaks off")
        if png_chunks.is_needed(kind):
            kept.append(encoded[start:end])
            has_pixels = has_pixels or kind == b"IDAT"
            if kind == b"IEND":
                break
            continue
        content = encoded[start + 8 : end - 4]
        if zlib.crc32(encoded[start + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end]):
            continue  # decoders are given none of it either, see `taxon.bundle.spoilt_metadata`
        if kind == b"eXIf":
            exif = content
        elif kind in TEXTS and text_bytes < MAX_TEXTS_BYTES and (said := _text(kind, content)):
            texts[said[0]] = said[1]
            text_bytes += len(said[1])
    if not has_pixels:
        raise UnstrippableError("the PNG has no pixels")
    turned = orientation.stated(_raw(texts) if exif is None else exif, texts.get(XMP))
    if turned != orientation.UPRIGHT:
        kept.insert(1, png_chunks.chunk(b"eXIf", orientation.tiff(turned)))
    return b"".join([png_chunks.SIGNATURE, *kept])


def _text(kind: bytes, content: bytes) -> tuple[bytes, bytes] | None:
    """(keyword, text) of those that may say how the picture is to be held; None of others."""
    keyword, _, rest = content.partition(b"\x00")
    if keyword not in (XMP, RAW_EXIF):
        return None
    packed = kind == b"zTXt" or rest[:1] == b"\x01"
    text = rest[1:] if kind == b"zTXt" else rest
    if kind == b"iTXt":
        parts = rest[2:].split(b"\x00", 2)
        if len(parts) < 3:
            return None
        text = parts[2]
    elif kind == b"tEXt":
        packed = False
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, MAX_TEXT_BYTES)
        except zlib.error:
            return None
    return keyword, text


def _raw(texts: dict[bytes, bytes]) -> bytes | None:
    """EXIF in hexadecimal digits behind three lines, as ImageMagick writes it."""
    with suppress(ValueError):
        if RAW_EXIF in texts:
            return bytes.fromhex(b"".join(texts[RAW_EXIF].split(b"\n")[3:]).decode("ascii"))
    return None
