"""The largest pictures that are decoded, and why a picture cannot be used.

Apart from `pixels`, so that whoever only tells of pictures never imports what decodes them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest pictures that are decoded."""

    max_bytes: int = 8 * 2**20
    """Of the encoded picture."""
    max_pixels: int = 50_000_000
    """Of the picture as its header states it, and of the picture after resizing."""


class PictureError(Exception):
    """A picture that cannot be used."""


class PictureUndecodableError(PictureError):
    """Not a picture of a supported format, or damaged."""

    def __init__(self, reason: str, detected_format: str = "") -> None:
        super().__init__(reason)
        self.detected_format = detected_format
        """As Pillow names it; empty if the bytes look like no supported format."""


class PictureTooLargeError(PictureError):
    """More bytes or pixels than the limits allow."""

    def __init__(self, byte_count: int, limits: Limits, pixel_count: int | None = None) -> None:
        super().__init__(
            f"the picture has {byte_count} bytes, at most {limits.max_bytes} are allowed"
            if pixel_count is None
            else f"the picture needs {pixel_count} pixels, at most {limits.max_pixels} are allowed"
        )
        self.byte_count = byte_count
        self.pixel_count = pixel_count
        self.limits = limits
