"""Arrays of numbers made larger or smaller. Not pictures on their way to a graph: those are `taxon.bundle.pixels`'."""

import numpy as np
from numpy.typing import NDArray


def resized(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """float32 `[rows, columns]` → `[height, width]`: bilinear between the centres of places, the edges repeated."""
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    return (rows @ values @ columns.T).astype(np.float32, copy=False)


def _weights(source: int, target: int) -> NDArray[np.float32]:
    """float32 `[target, source]`, whose rows add up to 1."""
    places = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    below = np.floor(places).astype(np.int64)
    part = (places - below).astype(np.float32)
    weights = np.zeros((target, source), np.float32)
    weights[np.arange(target), below] = 1 - part
    weights[np.arange(target), np.minimum(below + 1, source - 1)] += part
    return weights
