"""The training pictures of a bundle that the network sees most alike another: what it may have learned an answer from.

They are compared by what the graph's `places` have in common: the mean over the places, which is what a network that
ends in an average pooling hands to its last layer. So the run that gives a picture's maps gives its features too.
"""

from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import BundleError, Manifest
from taxon.bundle.store import Bundle

FOLDER, FEATURES = "thumbnails", "thumbnails/features.npy"
MEDIA_TYPE = "image/jpeg"
MOST_NEIGHBORS = 16
"""That may be asked for at once."""
SHORTEST = 1e-12
"""Of a vector that has a direction."""


class Neighbor(NamedTuple):
    """One training picture beside another picture."""

    thumbnail: bytes
    """A JPEG file."""
    labels: tuple[str, ...]
    """That are true of it."""
    similarity: float
    """Cosine of the features of both, in -1…1."""


def of_places(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[batch, features, rows, columns]` → features `[batch, features]`, each row of length 1 if it has a direction."""
    means: NDArray[np.float32] = places.astype(np.float32).mean(axis=(2, 3))
    units: NDArray[np.float32] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), SHORTEST)
    return units.astype(np.float32)


def write_features(features: NDArray[np.float32]) -> bytes:
    """Rows of `of_places` as a file in NumPy's format."""
    buffer = BytesIO()
    np.save(buffer, features, allow_pickle=False)
    return buffer.getvalue()


def read_features(content: bytes, manifest: Manifest) -> NDArray[np.float32]:
    """Reads it.

    Raises:
        BundleError: It is no such file, or not of this bundle's thumbnails and features, or not finite.
    """
    held, maps = manifest.thumbnails, manifest.maps
    if held is None or maps is None:
        raise TypeError("there are no thumbnails")
    try:
        features: NDArray[np.float32] = np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises several
        raise BundleError(f"{held.features} is no array: {error}") from error
    shape = len(held.pictures), maps.feature_count
    if features.dtype != np.float32 or features.shape != shape or not np.isfinite(features).all():
        raise BundleError(f"{held.features} must be finite float32 {list(shape)}")
    return features


def nearest(bundle: Bundle, features: NDArray[np.float32], count: int) -> list[Neighbor]:
    """The thumbnails that are most alike, the most alike first.

    Args:
        bundle: Has thumbnails.
        features: One row of `of_places`.
        count: At most; fewer if the bundle holds fewer.

    Raises:
        BundleError: A file has changed since the bundle was checked, or cannot be read.
    """
    held = bundle.manifest.thumbnails
    if held is None:
        raise TypeError("there are no thumbnails")
    similarities = read_features(bundle.read(held.features), bundle.manifest) @ features
    return [
        Neighbor(bundle.read(held.pictures[index].file), held.pictures[index].labels, float(similarities[index]))
        for index in np.argsort(-similarities, kind="stable")[:count]
    ]
