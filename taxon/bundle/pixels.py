"""Encoded bytes → the uint8 array that a graph takes. Training's evaluation, the export check and the
service all call `decode`, with the same pinned Pillow, so there is nothing between them to differ.

Resize and crop are bit-equal to torchvision's `Resize` and `CenterCrop` on PIL pictures. Normalisation
is not here: it is in the graph. Colour profiles are ignored, as in torchvision.
"""

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from taxon.bundle.manifest import PixelSpec

# Pillow's own guard warns at one size and raises at another, without the figures that a caller needs.
# `Limits` is stricter and always on, so the guard goes.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
EXIF_ORIENTATION = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def decode(encoded: bytes, spec: PixelSpec, limits: Limits = Limits()) -> NDArray[np.uint8]:
    """Decodes one JPEG, PNG, WebP or GIF; of an animation the first frame counts.

    Returns:
        uint8 `[height, width, channels]`, shaped as `spec.shape`, contiguous.

    Raises:
        PictureTooLargeError: Over a limit; known from the header, before any decoding.
        PictureUndecodableError: Empty, truncated, damaged or of another format.
    """
    if len(encoded) > limits.max_bytes:
        raise PictureTooLargeError(len(encoded), limits)
    try:
        picture: Image.Image = Image.open(BytesIO(encoded), formats=FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise PictureUndecodableError("the bytes are not a JPEG, PNG, WebP or GIF picture") from error
    except Exception as error:  # Pillow's parsers raise anything on hostile bytes
        raise PictureUndecodableError(f"the picture's header is damaged: {error}") from error
    # A strip of 1x10000 pixels passes the first limit and would be resized to gigabytes.
    pixel_count = max(math.prod(picture.size), math.prod(_resized_size(picture.size, spec.resize)))
    if pixel_count > limits.max_pixels:
        raise PictureTooLargeError(len(encoded), limits, pixel_count)
    detected_format = picture.format or ""
    try:
        picture.load()
        picture = _colored(_oriented(picture), spec.color)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise PictureUndecodableError(f"the picture is damaged: {error}", detected_format) from error
    resized = _resized_size(picture.size, spec.resize)
    if picture.size != resized:
        picture = picture.resize(resized, Image.Resampling[spec.interpolation.upper()])
    array = np.asarray(_center_crop(picture, spec.crop), dtype=np.uint8)
    return np.ascontiguousarray(array.reshape(spec.shape))


def _oriented(picture: Image.Image) -> Image.Image:
    method = ORIENTATIONS.get(picture.getexif().get(EXIF_ORIENTATION, 1))
    return picture if method is None else picture.transpose(method)


def _colored(picture: Image.Image, color: str) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit greyscale; Pillow cuts 16-bit colour to its high bytes too
        high_bytes = np.clip(np.asarray(picture), 0, 0xFFFF) >> 8
        picture = Image.fromarray(high_bytes.astype(np.uint8))
    if picture.has_transparency_data:
        transparent = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    mode = "RGB" if color == "rgb" else "L"
    return picture if picture.mode == mode else picture.convert(mode)


def _resized_size(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height), with torchvision's rounding."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _center_crop(picture: Image.Image, crop: tuple[int, int]) -> Image.Image:
    """Crops to (height, width); Pillow fills what lies outside with black."""
    height, width = crop
    left, top = _crop_start(picture.width, width), _crop_start(picture.height, height)
    return picture.crop((left, top, left + width, top + height))


def _crop_start(length: int, crop: int) -> int:
    """With torchvision's rounding, which differs between cropping and padding."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
