"""A row of numbers → the array that the graph takes. NumPy only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import Manifest
from taxon.service.errors import FieldInvalidError


def to_features(values: Sequence[float], manifest: Manifest) -> NDArray[np.float32]:
    """float32 `[features]`.

    Raises:
        FieldInvalidError: The model takes another number of values, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float32)
    if array.shape != manifest.input.shape:
        raise FieldInvalidError("features.values", f"{manifest.input.shape[0]} values are needed, not {array.size}")
    if (wrong := np.flatnonzero(~np.isfinite(array))).size:
        raise FieldInvalidError("features.values", f"every value must be finite, number {wrong[0]} (from 0) is not")
    return array
