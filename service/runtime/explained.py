"""What a worker answers of a picture that is to be explained, as one structured row, see `Explained`. Pure."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Explained(NamedTuple):
    """One row, unpacked."""

    picture: NDArray[np.uint8]
    """`[height, width, channels]`, as the graph took it."""
    row: NDArray[np.float32]
    """See `taxon.bundle.answers`."""
    maps: NDArray[np.float32] | None
    """`[labels, rows, columns]`, see `taxon.bundle.manifest.MapSpec`; None: the graph gives none."""
    features: NDArray[np.float32] | None
    """`[features]`, see `taxon.bundle.thumbnails`; None: the graph gives no maps either."""


def packed(
    pictures: NDArray[np.uint8],
    rows: NDArray[np.float32],
    maps: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """Structured `[batch]` of those, each `[batch, …]`."""
    given = zip(Explained._fields, (pictures, rows, maps, features), strict=True)
    parts = [(name, part) for name, part in given if part is not None]
    result = np.empty(len(rows), np.dtype([(name, part.dtype, part.shape[1:]) for name, part in parts]))
    for name, part in parts:
        result[name] = part
    return result


def unpacked(row: NDArray[Any]) -> Explained:
    """What was packed, of one picture."""
    names = row.dtype.names or ()
    maps, features = (row[name] if name in names else None for name in ("maps", "features"))
    return Explained(row["picture"], row["row"], maps, features)
