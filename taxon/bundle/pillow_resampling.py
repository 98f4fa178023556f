"""Pillow's resize and a crop of it, bit by bit, without most of what the crop leaves out.

Pillow resizes in two passes, first along the rows, then along the columns, and rounds to 8 bits in between; pictures
that lose far more height than width go the other way (`ImagingResampleInner`), and are left to it. A row of the first
pass depends on no other row, and a column of the second on no other column; so rows that the crop does not need, and
columns that it has dropped, can be left out. Within a pass Pillow can leave out pixels itself, by its `box`, whose
corners are 32-bit floats: it is given one only where these, and all that is computed of them, are exact. That is so for
targets that are powers of two, such as the usual 256.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxon.bundle.geometry import Side
from taxon.bundle.jpeg import over

FILTER_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
"""Pixels to either side, before they are scaled."""
EXACT_FLOATS = 2**24
"""Integers up to here, over any power of two, are 32-bit floats."""


def resized_crop(
    picture: Image.Image, array: NDArray[np.uint8] | None, x: Side, y: Side, interpolation: str
) -> Image.Image:
    """Resizes a picture to `x.target` times `y.target` pixels and keeps what the crop keeps.

    Args:
        picture: RGB or grey.
        array: The memory that it lies in, as `jpeg.over` takes it; None if that is Pillow's.
        x: Its width.
        y: Its height.
        interpolation: A lower-case name of Pillow's filters.
    """
    method = Image.Resampling[interpolation.upper()]
    columns_first = y.length - y.target > max(0, 2 * (x.length - x.target))
    if interpolation == "nearest" or columns_first or picture.size == (x.target, y.target):
        if picture.size != (x.target, y.target):
            picture = picture.resize((x.target, y.target), method)
        return picture.crop((x.first, y.first, x.first + x.count, y.first + y.count))
    top, bottom = (0, y.length) if array is None else _needed(y, FILTER_SUPPORT[interpolation])
    strip = picture if array is None else over(array[top:bottom])
    if (width := _exact(x)) is not None:
        strip = strip.resize((x.count, strip.height), method, (width[0], 0, width[1], strip.height))
    else:
        strip = strip.resize((x.target, strip.height), method).crop((x.first, 0, x.first + x.count, strip.height))
    if (height := _exact(y)) is not None:
        return strip.resize((x.count, y.count), method, (0, height[0] - top, x.count, height[1] - top))
    if strip.height != y.length:
        full = Image.new(strip.mode, (x.count, y.length))
        full.paste(strip, (0, top))
        strip = full
    return strip.resize((x.count, y.target), method).crop((0, y.first, x.count, y.first + y.count))


def _needed(side: Side, filter_support: float) -> tuple[int, int]:
    """Begin and end of the pixels that the kept ones are made of, and one more at either end."""
    if side.length == side.target:
        return 0, side.length
    support = filter_support * max(side.scale, 1.0)
    begin = (side.first + 0.5) * side.scale - support
    end = (side.first + side.count - 0.5) * side.scale + support
    return max(0, math.floor(begin) - 1), min(side.length, math.ceil(end) + 1)


def _exact(side: Side) -> tuple[float, float] | None:
    """What of the picture becomes the kept pixels, if floats can say so exactly."""
    is_power_of_two = side.target & (side.target - 1) == 0
    last = side.first + side.count
    if not is_power_of_two or side.length == side.target or last * side.length > EXACT_FLOATS:
        return None
    return side.begin, side.begin + side.extent
