"""How a bundle's inputs and answers are spread over bins: measured at export, and compared with what is served.

Four measures: `score`, the best one; `familiarity`; `brightness` of the array that the graph takes; `side`, the square
root of the picture's pixels. Export and service call the functions of this module, so that the two can differ by what
they were shown alone.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import Distribution, Measure

MEASURES: dict[Measure, float] = {"score": 0.01, "familiarity": 0.01, "brightness": 0.01, "side": 1.0}
"""With what differences count: of scores that are nearly 1 other arithmetic moves some digits."""
PARTS = 10
"""Of equal counts, as is usual for the population stability index."""
GRID = 16
"""Rows and columns, at least, whose pixels make the brightness: all of them would take ten times as long."""


def brightness(arrays: NDArray[Any]) -> NDArray[np.float64]:
    """float64 `[N]` in 0…1: the mean of every channel over a grid of pixels of uint8 `[N, H, W, C]`."""
    rows, columns = (max(1, length // GRID) for length in arrays.shape[1:3])
    means: NDArray[np.float64] = arrays[:, ::rows, ::columns].mean(axis=(1, 2, 3)) / 255
    return means


def side(pixel_count: int) -> float:
    """Of a square with as many pixels as the picture has, before anything is done to it."""
    return math.sqrt(pixel_count)


def distribution(measure: Measure, values: NDArray[Any]) -> Distribution:
    """Cuts values at their deciles.

    Args:
        measure: One of `MEASURES`.
        values: `[N]` of validation, N from 1.

    Returns:
        The first and the last bin are below and above all values: they hold none of them.
    """
    step = MEASURES[measure]
    deciles = np.quantile(values, np.linspace(0, 1, PARTS + 1), method="nearest")
    places = np.round(deciles / step)
    edges = sorted({*(places[:-1] - 0.5).tolist(), float(places[-1]) + 0.5})
    bounds = tuple(round(edge * step, 6) for edge in edges)
    counts = np.bincount([bin_of(bounds, float(value)) for value in values], minlength=len(bounds) + 1)
    return Distribution(edges=bounds, counts=tuple(counts.tolist()))


def bin_of(edges: Sequence[float], value: float) -> int:
    """From 0 to `len(edges)`: how many edges the value reaches."""
    return bisect_right(edges, value)
