"""JPEG files that lack their last bytes: whether all that the pixels need is there.

Every viewer shows such a picture, and for most of them the lower part is made up. Here it counts as whole only if every
coefficient's last scan is there (ITU T.81, annexes B and G) and no pixel depends on what would have followed.
"""

from taxon.bundle.jpeg_markers import SOS, segments

SOF_BASELINE, SOF_PROGRESSIVE = (0xC0, 0xC1), 0xC2
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
    progressive = False
    for marker, start, end in segments(encoded):
        if not start + 2 <= end <= len(encoded):
            break
        segment = encoded[start + 2 : end]
        if marker in SOF_BASELINE or marker == SOF_PROGRESSIVE:
            progressive = marker == SOF_PROGRESSIVE
            missing = {component: set(range(COEFFICIENTS)) for component in segment[6::3]}
        elif marker == SOS and segment:
            first, last, bits = segment[-3:] if progressive and len(segment) > 3 else (0, COEFFICIENTS - 1, 0)
            if bits & 0x0F == 0:
                for component in segment[1 : 1 + 2 * segment[0] : 2]:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())
