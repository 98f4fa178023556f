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
QUEUED_SHARE, DECODING_SHARE = 8, 3
"""Parts of the container's memory, if nothing else is said."""
JPEG_BYTES_PER_PIXEL, OTHERS_BYTES_PER_PIXEL = 13, 24
"""At the worst moment of decoding, turning and resizing the worst kind; `test_memory` measures them all."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one server."""

    queued_bytes: int
    """For inputs; messages that hold several are received within as much again."""
    decoding_bytes: int
    """For large pictures that are being decoded, in all processes together."""
    limits: Limits
    """Of any picture; of its pixels no more than could be decoded, whatever a header says or does not say."""

    def to_decode(self, encoded: Encoded) -> int:
        """Bytes that decoding a picture takes; 0 if it is not large. One whose header does not tell may take all: it is
        decoded alone, and whoever does so says what is wrong with it.

        Raises:
            PictureTooLargeError: It would not fit even alone.
        """
        count = header_pixels(encoded)
        if count is None:
            return self.decoding_bytes
        if count <= LARGE_PIXELS:
            return 0
        each = JPEG_BYTES_PER_PIXEL if encoded[:2] == b"\xff\xd8" else OTHERS_BYTES_PER_PIXEL
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
    usual_queued = max(max_message_bytes, min(USUAL_QUEUED_BYTES, granted // QUEUED_SHARE))
    queued_bytes = usual_queued if queued == "auto" else queued
    decoding_bytes = granted // DECODING_SHARE if decoding == "auto" else decoding
    if 2 * queued_bytes + decoding_bytes > granted:
        raise StartError(
            f"--max-queued-bytes {queued_bytes}, as much again for messages, and --max-decoding-bytes {decoding_bytes} "
            f"are more than the {granted} bytes of memory that this container has: lower them, or --max-message-bytes"
        )
    most_pixels = min(limits.max_pixels, decoding_bytes // JPEG_BYTES_PER_PIXEL)
    return Memory(queued_bytes, decoding_bytes, Limits(limits.max_bytes, most_pixels))
