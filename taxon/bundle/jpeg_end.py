"""JPEG files that lack their last bytes: whether all that the pixels need is there.

Every viewer shows such a picture, and for most of them the lower part is made up. Here it counts as whole only if every
coefficient's last scan is there (ITU T.81, annexes B and G) and no pixel depends on what would have followed.
"""

import re

SOF_BASELINE, SOF_PROGRESSIVE, SOS, EOI = (0xC0, 0xC1), 0xC2, 0xDA, 0xD9
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In a scan's data 0xFF is followed by 0 or by the number of a restart."""
COEFFICIENTS = 64
END = b"\xff\xd9"
RESTARTS = b"".join(bytes([0xFF, 0xD0 + number]) + b"\xaa" * 16 for number in range(8))
ENDINGS = (END, b"\xaa" * 64 + END, b"\x55" * 64 + END, 2 * RESTARTS + END)
"""What may have followed. A decoder that runs out of data makes up zeros, so that these give other pixels."""


def endings(encoded: bytes) -> list[bytes]:
    """The file as it may have been."""
    begun = encoded.removesuffix(b"\xff")  # half of its end marker
    return [begun + ending for ending in ENDINGS]


def has_every_scan(encoded: bytes) -> bool:
    """Whether each coefficient of each component has been sent to its last bit, so far as the headers of scans tell."""
    missing: dict[int, set[int]] = {}
    at, progressive = 2, False
    while found := NEXT_MARKER.search(encoded, at):
        marker = encoded[found.start() + 1]
        length = int.from_bytes(encoded[found.end() : found.end() + 2])
        segment = encoded[found.end() + 2 : found.end() + length]
        if marker == EOI or length < 2 or len(segment) != length - 2:
            break
        if marker in SOF_BASELINE or marker == SOF_PROGRESSIVE:
            progressive = marker == SOF_PROGRESSIVE
            missing = {component: set(range(COEFFICIENTS)) for component in segment[6::3]}
        elif marker == SOS and segment:
            first, last, bits = segment[-3:] if progressive and len(segment) > 3 else (0, COEFFICIENTS - 1, 0)
            if bits & 0x0F == 0:
                for component in segment[1 : 1 + 2 * segment[0] : 2]:
                    missing.get(component, set()).difference_update(range(first, last + 1))
        at = found.end() + length
    return bool(missing) and not any(missing.values())
