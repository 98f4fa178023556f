"""A map from nothing but scores: those of copies of a picture of which parts are hidden.

Petsiuk et al., "RISE: randomized input sampling for explanation of black-box models", BMVC 2018: masks are coarse
random grids, shifted at random and interpolated. Here a place counts by how the score goes with its being seen (the
slope of the regression on the mask), so that a score that is high whatever is hidden counts for nothing; and masks come
in pairs that hide what the other one shows. Knows arrays and scores; not models.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from taxon.explanation.activation import Map, normalised
from taxon.explanation.resizing import resized

CELLS = 7
"""Of a mask's grid, by each side."""
PLACES = 28
"""Of a map, by each side; as many as pixels if those are fewer."""
MASK_COUNT = 400
"""That a map is made of where time suffices; docs/experiments/serving.md has what more would bring."""
FEWEST_MASKS = 100
"""That tell more than chance."""


def masks(height: int, width: int, count: int) -> Iterator[NDArray[np.float32]]:
    """The share of each pixel that is seen, float32 `[height, width]` in 0…1; always the same masks."""
    for number in range(0, count, 2):
        seen = _mask(np.random.default_rng(number), height, width)
        yield seen
        if number + 1 < count:
            yield 1.0 - seen


def _mask(random: "np.random.Generator", height: int, width: int) -> NDArray[np.float32]:
    cells = [min(CELLS, side) for side in (height, width)]
    steps = [-(-side // count) for side, count in zip((height, width), cells, strict=True)]
    grid = (random.random([count + 1 for count in cells]) < 0.5).astype(np.float32)
    whole = resized(grid, *((count + 1) * step for count, step in zip(cells, steps, strict=True)))
    top, left = (int(random.integers(step)) for step in steps)
    return whole[top : top + height, left : left + width]


def masked(picture: NDArray[np.uint8], seen: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture, uint8 `[height, width, channels]`, with its mean colour where it is not seen."""
    mean = picture.mean(axis=(0, 1), dtype=np.float32)
    mixed: NDArray[np.uint8] = np.rint((picture - mean) * seen[..., None] + mean).astype(np.uint8)
    return mixed


class Evidence:
    """What the masks and the scores have told so far of a picture of `height` by `width` pixels."""

    def __init__(self, height: int, width: int) -> None:
        self._shape = min(PLACES, height), min(PLACES, width)
        self._seen: list[NDArray[np.float32]] = []
        self._scores: list[float] = []

    @property
    def count(self) -> int:
        """Of scores."""
        return len(self._scores)

    def add(self, seen: NDArray[np.float32], score: float) -> None:
        """Takes note of the score of a picture of which so much was seen."""
        self._seen.append(resized(seen, *self._shape))
        self._scores.append(score)

    def map(self) -> Map:
        """float32 `[rows, columns]`; of nothing at all, zeros."""
        if not self._scores:
            return np.zeros(self._shape, np.float32)
        seen, scores = np.stack(self._seen), np.array(self._scores, np.float32)
        apart = seen - seen.mean(axis=0)
        together = np.tensordot(scores - scores.mean(), apart, axes=1)
        slopes = together / np.maximum((apart**2).sum(axis=0), 1e-6)
        return normalised(slopes)
