"""The memory that callers' inputs may take, encoded and decoded, within what the container grants. Pure.

What models take is known only once they are loaded. Small pictures need no counting when they are decoded: a worker
decodes one after the other.
"""

from dataclasses import dataclass
from typing import Literal

from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.service.errors import StartError
from taxon.service.scheduling.picture_size import LARGE_PIXELS, Encoded, header_pixels

USUAL_QUEUED_BYTES = 256 * 2**20
QUEUED_SHARE, DECODING_SHARE = 8, 4
"""Parts of the container's memory, if nothing else is said."""
BYTES_PER_PIXEL = {b"\xff\xd8": 8, b"RI": 20}
"""At the worst moment of decoding, turning and resizing, by a file's first two bytes: JPEG, WebP. Measured by
`tests/service/scheduling/test_memory.py`."""
OTHERS_BYTES_PER_PIXEL = 16


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one server."""

    queued_bytes: int
    """For inputs; messages that hold several are received within as much again."""
    decoding_bytes: int
    """For large pictures that are being decoded, in all processes together."""
    limits: Limits
    """Of any picture."""

    def to_decode(self, encoded: Encoded) -> int:
        """Bytes that decoding a picture takes; 0 if it is not large. One whose header does not tell may be the largest.

        Raises:
            PictureTooLargeError: It would not fit even alone.
        """
        count = header_pixels(encoded)
        if count is None:
            count = self.limits.max_pixels
        if count <= LARGE_PIXELS:
            return 0
        each = BYTES_PER_PIXEL.get(bytes(encoded[:2]), OTHERS_BYTES_PER_PIXEL)
        if count * each > self.decoding_bytes:
            most = min(self.limits.max_pixels, self.decoding_bytes // each)
            raise PictureTooLargeError(len(encoded), Limits(self.limits.max_bytes, most), count)
        return count * each


def memory(
    granted: int,
    limits: Limits,
    max_message_bytes: int,
    queued: int | Literal["auto"] = "auto",
    decoding: int | Literal["auto"] = "auto",
) -> Memory:
    """What the operator asked for, and for the rest a share of what is granted.

    Args:
        granted: Bytes of the container.
        limits: Of any picture.
        max_message_bytes: Which inputs must have room for.
        queued: Bytes for inputs.
        decoding: Bytes for large pictures that are being decoded.

    Raises:
        StartError: It is more than is granted.
    """
    if queued == "auto":
        queued = max(max_message_bytes, min(USUAL_QUEUED_BYTES, granted // QUEUED_SHARE))
    if decoding == "auto":
        decoding = granted // DECODING_SHARE
    if 2 * queued + decoding > granted:
        raise StartError(
            f"--max-queued-bytes {queued}, as much again for messages, and --max-decoding-bytes {decoding} are more "
            f"than the {granted} bytes of memory that this container grants: lower them, or --max-message-bytes"
        )
    return Memory(queued, decoding, limits)
