"""Class activation maps: what the last layer makes of each place of a picture, outside the graph and only when asked.

The graph gives the features of each place as an output, which it computes anyway; the product with the last layer's
weights is here, since ONNX Runtime computes every output of a graph, whether it is fetched or not.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import BundleError, Manifest

Head = NDArray[np.float32]
"""`[labels, features + 1]`: of each label the weights of the features and, last, the bias."""


def write_head(head: Head) -> bytes:
    """As a file in NumPy's format."""
    buffer = BytesIO()
    np.save(buffer, head, allow_pickle=False)
    return buffer.getvalue()


def read_head(content: bytes, manifest: Manifest) -> Head:
    """Reads it.

    Raises:
        BundleError: It is no such file, or not of this bundle's labels and features, or not finite.
    """
    if manifest.maps is None:
        raise TypeError("there are no maps")
    try:
        head: Head = np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises several
        raise BundleError(f"{manifest.maps.weights} is no array: {error}") from error
    shape = len(manifest.labels), manifest.maps.feature_count + 1
    if head.dtype != np.float32 or head.shape != shape or not np.isfinite(head).all():
        raise BundleError(f"{manifest.maps.weights} must be finite float32 {list(shape)}")
    return head


def of_places(places: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """Features of places `[batch, features, rows, columns]` → maps `[batch, labels, rows, columns]`, in logits."""
    count, width, rows, columns = places.shape
    maps: NDArray[np.float32] = head[:, :-1] @ places.reshape(count, width, rows * columns) + head[:, -1:]
    return maps.reshape(count, len(head), rows, columns)
