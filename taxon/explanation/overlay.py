"""A map drawn over its picture, as a PNG file.

The file is written with zlib alone (PNG specification, third edition, W3C 2025): processes that speak gRPC never load
what decodes pictures.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import png_chunks
from taxon.explanation.activation import Map
from taxon.explanation.resizing import resized

SMALLEST_SIDE = 224
"""Of an overlay: smaller pictures are enlarged by whole numbers."""
OPACITY = 0.6
"""Of the colours where the map is 1."""
TRUECOLOUR = 2
RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Dark to bright, as matplotlib's `inferno`: it reads without colours too."""


def drawn(picture: NDArray[np.uint8], heat: Map) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`: the picture in grey, and over it the map, the more opaque the more it says.

    Args:
        picture: uint8 `[height, width, channels]`, one channel or three.
        heat: Of the picture, of whatever shape.
    """
    times = max(1, -(-SMALLEST_SIDE // min(picture.shape[:2])))
    enlarged = picture.repeat(times, axis=0).repeat(times, axis=1)
    grey = enlarged.mean(axis=2, dtype=np.float32)[..., None]
    values = np.clip(resized(heat, *enlarged.shape[:2]), 0.0, 1.0)
    steps = np.linspace(0.0, 1.0, len(RAMP))
    colours = np.stack([np.interp(values, steps, RAMP[:, channel]) for channel in range(3)], axis=-1)
    opacity = (OPACITY * np.sqrt(values))[..., None]
    mixed: NDArray[np.uint8] = np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8)
    return mixed


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of uint8 `[height, width, 3]`."""
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, TRUECOLOUR, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")
    return png_chunks.SIGNATURE + b"".join(png_chunks.chunk(kind, content) for kind, content in chunks)
