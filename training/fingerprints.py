"""Perceptual fingerprints of pictures, and pairs that look alike. No thresholds of taste but the two below."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

HASH_SIDE = 8
GRID_SIDE = 32
"""Pictures are compared at this size: a 63-bit hash finds candidates, the grid decides."""
HASH_DISTANCE = 10
"""Bits in which candidates may differ."""
GRID_DISTANCE = 12.0
"""Largest root mean square difference of grey levels (0-255) between near-duplicates."""
FLAT = 2.0
"""Below this standard deviation of grey levels a picture has nothing to compare."""
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a picture to compare it."""

    bits: int
    """63 signs of low frequencies of the grey picture (pHash, Zauner 2010)."""
    grid: NDArray[np.uint8]
    """[32, 32] grey levels."""

    @property
    def flat(self) -> bool:
        """Whether it shows nothing: all such pictures look alike."""
        return float(self.grid.std()) < FLAT


def fingerprint(picture: Image.Image) -> Fingerprint:
    """Of an oriented picture of any mode."""
    grid = np.asarray(picture.convert("L").resize((GRID_SIDE, GRID_SIDE), Image.Resampling.BOX))
    low = dctn(grid.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].flatten()[1:]  # without the mean
    bits = 0
    for sign in low > np.median(low):
        bits = bits << 1 | int(sign)
    return Fingerprint(bits, grid)


def alike(fingerprints: list[Fingerprint]) -> Iterator[tuple[int, int, float]]:
    """Pairs (first, second, root mean square difference) that look alike; flat pictures are left out.

    Compares all pairs of hashes, in blocks: 60,000 pictures take about a minute.
    """
    chosen = np.asarray([n for n, found in enumerate(fingerprints) if not found.flat], dtype=np.int64)
    if len(chosen) < 2:
        return
    bits = np.asarray([fingerprints[n].bits for n in chosen], dtype=np.uint64)
    for start in range(0, len(chosen), BLOCK):
        block = bits[start : start + BLOCK]
        distances = np.bitwise_count(block[:, None] ^ bits[None, start:])
        for row, column in np.argwhere(distances <= HASH_DISTANCE):
            if column <= row:
                continue
            first, second = int(chosen[start + row]), int(chosen[start + column])
            gap = fingerprints[first].grid.astype(np.float32) - fingerprints[second].grid
            difference = float(np.sqrt(np.mean(gap * gap)))
            if difference <= GRID_DISTANCE:
                yield first, second, difference
