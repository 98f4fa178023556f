"""The pixels of a JPEG, by libjpeg-turbo without a detour.

Pillow feeds the same library piece by piece and copies each row; simplejpeg decodes in one call into an array that
Pillow then takes as it is. Whatever simplejpeg does not decode without any remark (a damaged file, CMYK, an odd
sub-sampling) is decoded by Pillow, so that its verdict is the only one; damage may so cost two decodings, and six where
only last bytes are missing. Knows nothing of limits, colours or sizes.
"""

import re
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from taxon.bundle.jpeg_markers import SOS, segments

try:
    import simplejpeg
except ImportError:  # extra `pixels`; Pillow gives the same bits
    simplejpeg = None

# A scan of a progressive JPEG may be 12 bytes long and costs a pass over the whole picture: 110 kB can take six
# seconds. Encoders write ten scans, the most thorough some seventy.
MAX_SCANS = 100
ARITHMETIC = re.compile(rb"\xff[\xc9-\xcb\xcd-\xcf]")
"""Markers of frames that are coded so; may also lie in a thumbnail."""

COLORSPACES = {"RGB": "RGBX", "L": "GRAY"}
"""Pillow's mode → what simplejpeg is to write: a pixel of Pillow's RGB pictures has four bytes."""
MAX_BYTES = 2**31 - 1
"""Of a decoded picture: simplejpeg counts them in an int."""
SMALLEST_SCALED = 16
"""Shorter sides may come out the same at two scales, and simplejpeg is told the scale by the sides."""


def decoded(picture: ImageFile, encoded: bytes) -> NDArray[np.uint8] | None:
    """The pixels that `picture.load()` would give, at the scale of its `draft`.

    Args:
        picture: Opened and not yet loaded.
        encoded: What it was opened from.

    Returns:
        uint8 `[height, width, 4]` (the fourth channel says nothing) or `[height, width]`; None if Pillow must load it.

    Raises:
        MemoryError: The picture does not fit.
    """
    if simplejpeg is None or not isinstance(picture, JpegImageFile) or picture.mode not in COLORSPACES:
        return None
    width, height = picture.size
    scale, _ = picture.decoderconfig or (1, 0)
    if 4 * width * height > MAX_BYTES or (scale > 1 and min(width, height) < SMALLEST_SCALED):
        return None
    # Sizes are compared first: simplejpeg makes room for what the file says, and Pillow may have read another header.
    scaled = {"min_width": width, "min_height": height} if scale > 1 else {}
    try:
        if simplejpeg.decode_jpeg_header(encoded, **scaled)[:2] != (height, width):
            return None
        array: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, COLORSPACES[picture.mode], **scaled)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it was: Pillow has the last word
        return None
    return array if array.shape[2] == 4 else array[:, :, 0]


def over(array: NDArray[np.uint8]) -> Image.Image:
    """A picture that lies in the array's memory: uint8 `[height, width, 4]`, or `[height, width]` for a grey one."""
    size = array.shape[1], array.shape[0]
    if array.ndim == 2:
        return Image.frombuffer("L", size, array, "raw", "L", 0, 1)
    return Image.fromarrow(Image.frombuffer("RGBX", size, array, "raw", "RGBX", 0, 1), "RGB", size)


def is_cut_off(encoded: bytes, size: tuple[int, int]) -> bool:
    """Whether a JPEG has too few bytes for its pixels, which is known without decoding them: Huffman's codes spend at
    least one bit on every block of 8 x 8 (ITU T.81, annexes F and G). Arithmetic coding may do with less.
    """
    width, height = size
    return 8 * 64 * len(encoded) < width * height and not ARITHMETIC.search(encoded)


def has_too_many_scans(encoded: bytes) -> bool:
    """Whether a JPEG has more than `MAX_SCANS`; looks no further than that many."""
    scans = (marker for marker, _, _ in segments(encoded) if marker == SOS)
    return next(islice(scans, MAX_SCANS, None), None) is not None
