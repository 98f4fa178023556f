"""What the resampler `simd` computes, in NumPy: the definition of its bytes.

The algorithm is that of the Rust crate fast_image_resize 6 (after Pillow-SIMD): filters in 64-bit floats, rounded to
16-bit integers with one common binary point for each pass; first the pass along the columns, then that along the rows,
in 32-bit integers. Integers are the same on every processor, so this can stand in for the library, only slower.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]
"""(left, top, width, height) of what is resized, in pixels of the picture."""

COEFFICIENT_BITS, SUM_BITS = 15, 32 - 8 - 2
"""A coefficient has a sign besides; a sum needs two bits more than its bytes, for filters with negative parts."""


def resize(array: NDArray[np.uint8], box: Box, size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Resizes what lies in a box.

    Args:
        array: `[height, width]` or `[height, width, channels]`.
        box: It lies in the picture.
        size: (width, height) of the result.
        interpolation: `bilinear`, `bicubic` or `lanczos`.
    """
    left, top, width, height = box
    array = _along(array, 0, (top, height), size[1], interpolation)
    return _along(array, 1, (left, width), size[0], interpolation)


def _along(
    array: NDArray[np.uint8], axis: int, part: tuple[float, float], target: int, interpolation: str
) -> NDArray[np.uint8]:
    start, length = part
    if length == target and start == round(start):
        return array.take(range(int(start), int(start) + target), axis)
    starts, weights, bits = coefficients(array.shape[axis], start, start + length, target, interpolation)
    shape = [1] * array.ndim
    shape[axis] = target
    result: NDArray[np.int32] | int = 1 << (bits - 1)  # one half
    last = array.shape[axis] - 1
    for tap in range(weights.shape[1]):  # behind the last pixel weights are 0
        pixels = array.take(np.minimum(starts + tap, last), axis).astype(np.int32)
        result = result + pixels * weights[:, tap].reshape(shape)
    return np.clip(result >> bits, 0, 255).astype(np.uint8)


def coefficients(
    length: int, begin: float, end: float, target: int, interpolation: str
) -> tuple[NDArray[np.intp], NDArray[np.int32], int]:
    """Of each resulting pixel the first pixel that it is made of, the weights of that and the following ones
    `[target, taps]`, and the weights' bits behind the binary point.
    """
    weigh, support = FILTERS[interpolation]
    scale = (end - begin) / target
    filter_scale = max(scale, 1.0)
    radius = support * filter_scale
    centers = begin + (np.arange(target) + 0.5) * scale
    firsts = np.maximum(np.floor(centers - radius), 0.0)
    ends = np.minimum(np.ceil(centers + radius), length)
    places = firsts[:, None] + np.arange(int((ends - firsts).max()))
    weights = weigh((places - (centers - 0.5)[:, None]) * (1.0 / filter_scale))
    weights[places >= ends[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # `sum` adds in another order
    largest, bits = weights.max(), 0
    for bits in range(SUM_BITS):
        if _rounded(largest * 2.0 ** (bits + 1)) >= 1 << COEFFICIENT_BITS:
            break
    return firsts.astype(np.intp), _rounded(weights * 2.0**bits).astype(np.int32), bits


def _rounded(values: Floats) -> Floats:
    """To the nearest integer, halves away from zero."""
    whole = np.trunc(values)
    away: Floats = np.sign(values) * (np.abs(values - whole) >= 0.5)
    return whole + away


def _bilinear(at: Floats) -> Floats:
    return np.maximum(1.0 - np.abs(at), 0.0)


def _bicubic(at: Floats) -> Floats:
    """Catmull and Rom's, as Pillow's is."""
    at = np.abs(at)
    near = (1.5 * at - 2.5) * at * at + 1.0
    far = (((at - 5.0) * at + 8.0) * at - 4.0) * -0.5
    return np.where(at < 1.0, near, np.where(at < 2.0, far, 0.0))


def _lanczos(at: Floats) -> Floats:
    return np.where((at >= -3.0) & (at < 3.0), _sinc(at) * _sinc(at / 3.0), 0.0)


def _sinc(at: Floats) -> Floats:
    angle = at * np.pi
    return np.where(at == 0.0, 1.0, np.sin(angle) / np.where(at == 0.0, 1.0, angle))


FILTERS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""With the pixels that they reach to either side, before they are scaled."""
