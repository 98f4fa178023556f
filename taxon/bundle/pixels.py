"""Encoded bytes → the uint8 array that a graph takes. Training's evaluation, the export check and the
service all call `decode`, with the same pinned libraries, so there is nothing between them to differ.

Resize and crop are bit-equal to torchvision's `Resize` and `CenterCrop` on PIL pictures, but for what
`scaled_decoding` and the resampler `simd` change. Normalisation is not here: it is in the graph. Colour profiles are
ignored, as in torchvision.
"""

import hashlib
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from taxon.bundle import jpeg, pillow_guard, pillow_resampling, simd_resampling
from taxon.bundle.geometry import resized_size, sides
from taxon.bundle.jpeg_end import endings, has_every_scan
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureTooLargeError, PictureUndecodableError
from taxon.bundle.spoilt_metadata import mended, without_spoilt_metadata

# Scaled decoding leaves at least so many times the target's sides, so that the resize still filters.
SCALED_AT_LEAST = 2

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
ROWS_AT_A_TIME = 64
SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


@pillow_guard.lifted()
def open_picture(source: Path | BytesIO) -> ImageFile:
    """Reads a picture's header, and with it its size, however large. Whoever decodes it holds it to `Limits` first.

    Raises:
        UnidentifiedImageError: Not of a supported format.
        OSError: It cannot be read.
        Exception: Pillow's parsers raise anything on hostile bytes.
    """
    try:
        return Image.open(
            BytesIO(without_spoilt_metadata(source.getvalue())) if isinstance(source, BytesIO) else source,
            formats=FORMATS,
        )
    except (MemoryError, FileNotFoundError):
        raise
    except Exception:
        encoded = source.getvalue() if isinstance(source, BytesIO) else without_spoilt_metadata(source.read_bytes())
        if (without := mended(encoded)) == encoded and isinstance(source, BytesIO):
            raise
        return Image.open(BytesIO(without), formats=FORMATS)


@pillow_guard.lifted()
def load(picture: ImageFile, encoded: bytes, prepare: Callable[[ImageFile], object]) -> ImageFile:
    """The picture with its pixels. A JPEG that lacks its last bytes is taken if no pixel needed them.

    Args:
        picture: Opened, within all limits.
        encoded: What it was opened from.
        prepare: Says how it is to be decoded, before it is; may have been called already.

    Raises:
        Exception: As `open_picture`; OSError if pixels are missing.
    """
    prepare(picture)
    try:
        picture.load()
    except OSError:
        if not isinstance(picture, JpegImageFile) or not has_every_scan(encoded):
            raise
        picture.close()  # one decoded picture at a time: `Limits` and whoever counts memory allow for no more
        seen = set()
        for whole in endings(encoded):
            picture = open_picture(BytesIO(whole))
            prepare(picture)
            picture.load()
            seen.add(_digest(picture))
            if len(seen) > 1:
                raise
    return picture


def _digest(picture: Image.Image) -> bytes:
    """Of the pixels, without a copy of all of them."""
    digest = hashlib.sha256()
    for top in range(0, picture.height, ROWS_AT_A_TIME):
        rows = picture.crop((0, top, picture.width, min(top + ROWS_AT_A_TIME, picture.height)))
        digest.update(rows.tobytes())
    return digest.digest()


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
        picture = open_picture(BytesIO(encoded))
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise PictureUndecodableError("the bytes are not a JPEG, PNG, WebP or GIF picture") from error
    except Exception as error:  # Pillow's parsers raise anything on hostile bytes
        raise PictureUndecodableError(f"the picture's header is damaged: {error}") from error
    # A strip of 1x10000 pixels passes the first limit and would be resized to gigabytes.
    pixel_count = max(math.prod(picture.size), math.prod(resized_size(picture.size, spec.resize)))
    if pixel_count > limits.max_pixels:
        raise PictureTooLargeError(len(encoded), limits, pixel_count)
    detected_format = picture.format or ""
    if picture.info.get("progressive") and jpeg.has_too_many_scans(encoded):
        raise PictureUndecodableError(f"the picture has more than {jpeg.MAX_SCANS} scans", detected_format)
    if detected_format == "JPEG" and jpeg.is_cut_off(encoded, picture.size):
        raise PictureUndecodableError("the picture is cut off: it has too few bytes for its pixels", detected_format)
    stated = picture.size

    def prepare(opened: ImageFile) -> None:
        if spec.scaled_decoding and isinstance(opened, JpegImageFile):
            _scale_down(opened, spec.resize)

    try:
        prepare(picture)
        array = jpeg.decoded(picture, encoded)
        loaded = load(picture, encoded, prepare) if array is None else jpeg.over(array)
        turn = _turn(picture)
        shown = colored(loaded if turn is None else loaded.transpose(turn), spec.color)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise PictureUndecodableError(f"the picture is damaged: {error}", detected_format) from error
    resized = resized_size(stated[::-1] if turn in SIDEWAYS else stated, spec.resize)
    x, y = sides(shown.size, resized, spec.crop)
    if _resizes_with_simd(spec):
        part = simd_resampling.resized_crop(shown, x, y, spec.interpolation)
    else:
        part = pillow_resampling.resized_crop(shown, array if shown is loaded else None, x, y, spec.interpolation)
    if spec.color == "rgb" and part.mode == "L":
        part = part.convert("RGB")
    kept = np.asarray(part, dtype=np.uint8).reshape(y.count, x.count, spec.shape[2])
    if kept.shape == spec.shape:
        return np.ascontiguousarray(kept)
    framed = np.zeros(spec.shape, dtype=np.uint8)
    framed[y.before : y.before + y.count, x.before : x.before + x.count] = kept
    return framed


def why_slow(spec: PixelSpec) -> str | None:
    """Why `decode` resizes far more slowly here than it should, with the same result; None if it does not."""
    return simd_resampling.why_slow() if _resizes_with_simd(spec) else None


def _resizes_with_simd(spec: PixelSpec) -> bool:
    return spec.resampler == "simd" and spec.interpolation != "nearest"


def _scale_down(picture: JpegImageFile, resize: int | tuple[int, int]) -> None:
    """Has the decoder leave out what only a larger target would need."""
    sideways = _turn(picture) in SIDEWAYS
    width, height = resized_size(picture.size[::-1] if sideways else picture.size, resize)
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
