"""How a picture is to be held, read from its metadata as Pillow reads it and written as the only metadata that stays.

Without Pillow, since processes that speak gRPC do without; a test compares the two.
"""

import re
import struct

UPRIGHT = 1
TAG = 0x0112
PREFIXES = (b"MM\x00\x2a", b"II\x2a\x00", b"MM\x2a\x00", b"II\x00\x2a")
EXIF = b"Exif\x00\x00"
WHOLE_NUMBERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L"}
"""Types of TIFF that are whole numbers, as `struct` names them (TIFF 6.0, section 2)."""
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def stated(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, from 1 (upright) to 8; 1 if nothing is said, or nothing that means anything.

    Args:
        exif: With or without `Exif` before it; None if there is none.
        xmp: Asked where the EXIF does not say.
    """
    found: int | None = None
    if exif and (content := re.sub(rb"^(Exif\x00\x00){1,2}", b"", exif)):
        if content[:4] not in PREFIXES:
            return UPRIGHT
        found = _in_tiff(content)
    if found is None and xmp and (match := IN_XMP.search(xmp)):
        found = int(match[1])
    return UPRIGHT if found is None or found not in range(1, 9) else found


def _in_tiff(content: bytes) -> int | None:
    """Of the first directory; of entries that come twice the last counts."""
    order = ">" if content[:2] == b"MM" else "<"
    found: int | None = None
    try:
        (at,) = struct.unpack_from(order + "L", content, 4)
        (count,) = struct.unpack_from(order + "H", content, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, value_count = struct.unpack_from(order + "HHL", content, entry)
            byte_count = BYTES_OF_TYPE.get(kind, 0) * value_count
            start = entry + 8
            if byte_count > 4:
                (start,) = struct.unpack_from(order + "L", content, entry + 8)
            if tag != TAG or not byte_count or start + byte_count > len(content):
                continue
            found = struct.unpack_from(order + WHOLE_NUMBERS[kind], content, start)[0] if kind in WHOLE_NUMBERS else 0
    except struct.error:
        pass  # what was read before it breaks off counts
    return found


def tiff(orientation: int) -> bytes:
    """The shortest EXIF that says this, without `Exif` before it."""
    return b"MM\x00\x2a" + struct.pack(">LHHHLHHL", 8, 1, TAG, 3, 1, orientation, 0, 0)
