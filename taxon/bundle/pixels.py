"""Encoded bytes → the uint8 array that a graph takes. Training's evaluation, the export check and the
service all call `decode`, with the same pinned Pillow, so there is nothing between them to differ.

Resize and crop are bit-equal to torchvision's `Resize` and `CenterCrop` on PIL pictures, but for what
`scaled_decoding` changes. Normalisation is not here: it is in the graph. Colour profiles are ignored, as in
torchvision.
"""

import math
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from taxon.bundle import pillow_guard
from taxon.bundle.jpeg_end import endings, has_every_scan
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureTooLargeError, PictureUndecodableError
from taxon.bundle.png_metadata import without_spoilt_metadata

# Scaled decoding leaves at least so many times the target's sides, so that the resize still filters.
SCALED_AT_LEAST = 2

# A scan of a progressive JPEG may be 12 bytes long and costs a pass over the whole picture: 110 kB can take six
# seconds. Encoders write ten scans, the most thorough some seventy.
MAX_SCANS = 100
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In a scan's data 0xFF is followed by 0 or by the number of a restart; any number of 0xFF may precede a marker."""
SOS, EOI = 0xDA, 0xD9

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
SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


@pillow_guard.lifted()
def open_picture(source: Path | BinaryIO) -> ImageFile:
    """Reads a picture's header, and with it its size, however large. Whoever decodes it holds it to `Limits` first.

    Raises:
        UnidentifiedImageError: Not of a supported format.
        OSError: It cannot be read.
        Exception: Pillow's parsers raise anything on hostile bytes.
    """
    if isinstance(source, BytesIO):
        source = BytesIO(without_spoilt_metadata(source.getvalue()))
    return Image.open(source, formats=FORMATS)


@pillow_guard.lifted()
def load(picture: ImageFile, encoded: bytes, prepare: Callable[[ImageFile], object]) -> ImageFile:
    """The picture with its pixels. A JPEG that lacks its last bytes is taken if no pixel needed them.

    Args:
        picture: Opened, within all limits.
        encoded: What it was opened from.
        prepare: Says how it is to be decoded, before it is.

    Raises:
        Exception: As `open_picture`; OSError if pixels are missing.
    """
    prepare(picture)
    try:
        picture.load()
    except OSError:
        if not isinstance(picture, JpegImageFile) or not has_every_scan(encoded):
            raise
        ended = [open_picture(BytesIO(whole)) for whole in endings(encoded)]
        for one in ended:
            prepare(one)
            one.load()
        if len({one.tobytes() for one in ended}) > 1:
            raise
        return ended[0]
    return picture


@pillow_guard.lifted()
def decode(encoded: bytes, spec: PixelSpec, limits: Limits = Limits()) -> NDArray[np.uint8]:
    """Decodes one JPEG, PNG, WebP or GIF; of an animation the first frame counts.

    Returns:
        uint8 `[height, width, channels]`, shaped as `spec.shape`, contiguous.

    Raises:
        PictureTooLargeError: Over a limit; known from the header, before any decoding.
        PictureUndecodableError: Empty, truncated, damaged, of another format, or a JPEG of too many scans.
    """
    if len(encoded) > limits.max_bytes:
        raise PictureTooLargeError(len(encoded), limits)
    try:
        picture: Image.Image = (opened := open_picture(BytesIO(encoded)))
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
    if picture.info.get("progressive") and has_too_many_scans(encoded):
        raise PictureUndecodableError(f"the picture has more than {MAX_SCANS} scans", detected_format)
    stated = picture.size

    def prepare(opened: ImageFile) -> None:
        if spec.scaled_decoding and isinstance(opened, JpegImageFile):
            _scale_down(opened, spec.resize)

    try:
        picture = load(opened, encoded, prepare)
        turn = _turn(picture)
        picture = colored(picture if turn is None else picture.transpose(turn), spec.color)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise PictureUndecodableError(f"the picture is damaged: {error}", detected_format) from error
    resized = _resized_size(stated[::-1] if turn in SIDEWAYS else stated, spec.resize)
    if picture.size != resized:
        picture = picture.resize(resized, Image.Resampling[spec.interpolation.upper()])
    picture = _center_crop(picture, spec.crop)
    if spec.color == "rgb" and picture.mode == "L":
        picture = picture.convert("RGB")
    array = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(array.reshape(spec.shape))


def has_too_many_scans(encoded: bytes) -> bool:
    """Walks a JPEG from marker to marker, as decoders do (ITU T.81, annex B); whatever lies between is passed over."""
    at, count = 2, 0
    while count <= MAX_SCANS and (found := NEXT_MARKER.search(encoded, at)):
        marker = encoded[found.start() + 1]
        if marker == EOI:
            break
        count += marker == SOS
        at = found.end() + int.from_bytes(encoded[found.end() : found.end() + 2])
    return count > MAX_SCANS


def _scale_down(picture: JpegImageFile, resize: int | tuple[int, int]) -> None:
    """Has the decoder leave out what only a larger target would need."""
    sideways = _turn(picture) in SIDEWAYS
    width, height = _resized_size(picture.size[::-1] if sideways else picture.size, resize)
    stored = (height, width) if sideways else (width, height)
    picture.draft(None, (SCALED_AT_LEAST * stored[0], SCALED_AT_LEAST * stored[1]))


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright, as EXIF says."""
    return ORIENTATIONS.get(orientation(picture))


def upright(picture: Image.Image) -> Image.Image:
    """The picture as EXIF says that it is to be held."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def orientation(picture: Image.Image) -> int:
    """As EXIF says; 1, upright, if it says nothing or is spoilt."""
    try:
        stated = picture.getexif().get(EXIF_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as Pillow's other parsers
        return 1
    return stated if isinstance(stated, int) else 1


def colored(picture: Image.Image, color: str) -> Image.Image:
    """In the colours asked for; but grey stays one channel until it has been resized: the same result, and faster."""
    if picture.mode.startswith("I"):  # 16-bit greyscale; Pillow cuts 16-bit colour to its high bytes too
        high_bytes = np.clip(np.asarray(picture), 0, 0xFFFF) >> 8
        picture = Image.fromarray(high_bytes.astype(np.uint8))
    if picture.has_transparency_data:
        transparent = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    mode = "RGB" if color == "rgb" else "L"
    return picture if picture.mode in (mode, "L") else picture.convert(mode)


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
