"""How scores, familiarity, brightness and size of the validation set are spread: what the service's metrics set beside
that of what it is asked.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.answers import parted
from taxon.bundle.distributions import brightness, distribution, side
from taxon.bundle.manifest import Distribution, Measure
from taxon.bundle.pixels import open_picture
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate

BATCH = 32


def measured(candidate: Candidate, rows: NDArray[np.float32]) -> dict[Measure, Distribution]:
    """By measure, see `taxon.bundle.distributions`.

    Args:
        candidate: Whose validation pictures they are.
        rows: Its `answers`, float32 `[N, K]` or `[N, K + 1]`, as served.

    Raises:
        ParityError: A picture cannot be read.
    """
    scores, familiarity = parted(rows, len(candidate.labels))
    values: dict[Measure, NDArray[np.floating]] = {"score": scores.max(axis=1)}
    if familiarity is not None:
        values["familiarity"] = familiarity
    if candidate.pixels is not None:
        batches = parity.decoded_batches(candidate.files, candidate.pixels, (min(BATCH, len(candidate.files)),))
        values["brightness"] = np.concatenate([brightness(arrays) for _, arrays in batches])[: len(candidate.files)]
        values["side"] = np.array([_side(file) for file in candidate.files if isinstance(file, Path)])
    return {measure: distribution(measure, found) for measure, found in values.items()}


def _side(file: Path) -> float:
    with open_picture(file) as picture:
        return side(picture.width * picture.height)
