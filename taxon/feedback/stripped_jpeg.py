"""A JPEG without what no pixel needs: of its application segments only those that decide colours, shortened to that,
and the orientation (ITU T.81, annex B; JFIF 1.02; Adobe's technical note 5116).
"""

from itertools import count

from taxon.bundle.jpeg_markers import EOI, NEXT, SOS
from taxon.feedback import orientation
from taxon.feedback.unstrippable import UnstrippableError, counted

APP0, APP1, APP14, APP15, COM = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
JFIF = b"JFIF\x00\x01\x02\x00\x00\x01\x00\x01\x00\x00"
"""Version 1.02, no density, no thumbnail: that it is there is what decides colours."""
ADOBE_BYTES = 12
"""Up to the colour transform, the last of them; decoders read nothing of shorter ones."""
XMP = b"http://ns.adobe.com/xap/1.0/\x00"


def without_segments(encoded: bytes) -> bytes:
    """The same pixels.

    Raises:
        UnstrippableError: A segment has no length, or reaches beyond the end.
    """
    colors: list[bytes] = []
    kept: list[bytes] = []
    exif: list[bytes] = []  # joined once: a file may have thousands
    xmp: bytes | None = None
    at, in_scans = 2, False
    for _ in counted(count()):
        if not (found := NEXT.search(encoded, at)):
            break
        marker, start = encoded[found.start() + 1], found.end()
        if in_scans:
            kept.append(encoded[at : found.start()])  # the scan's data
        if marker == EOI and in_scans:
            return _joined(colors, kept, orientation.stated(b"".join(exif), xmp)) + b"\xff\xd9"
        length = int.from_bytes(encoded[start : start + 2])
        at = start + length
        if marker == EOI or length < 2 or (at > len(encoded) and not in_scans):
            raise UnstrippableError("a segment of the JPEG has no sound length")
        if not (APP0 <= marker <= APP15 or marker == COM):
            kept.append(bytes((0xFF, marker)) + encoded[start:at])
            in_scans = in_scans or marker == SOS
            continue
        content = encoded[start + 2 : at]
        if marker == APP0 and content.startswith(b"JFIF\x00") and len(content) >= len(JFIF):
            colors.append(_segment(APP0, JFIF))
        elif marker == APP14 and content.startswith(b"Adobe") and len(content) >= ADOBE_BYTES:
            colors.append(_segment(APP14, content[:ADOBE_BYTES]))
        elif marker == APP1 and content.startswith(orientation.EXIF) and not in_scans:
            exif.append(content[len(orientation.EXIF) :])
        elif marker == APP1 and content.startswith(XMP) and not in_scans:
            xmp = content[len(XMP) :]
    if not in_scans:
        raise UnstrippableError("the JPEG has no pixels")
    return _joined(colors, [*kept, encoded[at:]], orientation.stated(b"".join(exif), xmp))


def _joined(colors: list[bytes], kept: list[bytes], turned: int) -> bytes:
    said = [] if turned == orientation.UPRIGHT else [_segment(APP1, orientation.EXIF + orientation.tiff(turned))]
    return b"".join([b"\xff\xd8", *colors, *said, *kept])


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content
