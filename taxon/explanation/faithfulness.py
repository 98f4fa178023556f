"""How faithful a map is: what becomes of the score as what it points at is hidden, or shown alone.

Deletion and insertion of Petsiuk et al., "RISE", BMVC 2018. Deletion hides the places in the map's order, the first the
most important: the sooner the score falls, the smaller the area under its curve, the better. Insertion shows them one
after the other on a blurred picture: the larger the area the better. Both depend on picture and network, so they are
compared with those of random maps on the same pictures, never taken alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxon.explanation.activation import Map
from taxon.explanation.masking import masked
from taxon.explanation.resizing import resized

Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 `[N, height, width, channels]` → the score of the explained label, float32 `[N]`."""
STEPS = 16
"""Equal parts of the picture that are hidden or shown in turn."""
BLURRED = 8
"""Places by side that are left of the picture before insertion."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Areas under the curves of one map."""

    deletion: float
    """In 0…1; less is better."""
    insertion: float
    """In 0…1; more is better."""


def measured(picture: NDArray[np.uint8], heat: Map, score: Score) -> Faithfulness:
    """The areas of one picture's map, by trapezoids.

    Args:
        picture: uint8 `[height, width, channels]`, as the graph takes it.
        heat: Its map.
        score: Asked twice about `STEPS + 1` pictures.
    """
    ranks = _ranks(resized(heat, *picture.shape[:2]))
    shares = np.linspace(0.0, 1.0, STEPS + 1)
    blurred = _blurred(picture)
    shown = [ranks < share for share in shares]
    inserted = np.stack([np.where(seen[..., None], picture, blurred) for seen in shown])
    deleted = np.stack([masked(picture, 1.0 - seen.astype(np.float32)) for seen in shown])
    return Faithfulness(_area(score(deleted)), _area(score(inserted)))


def random_map(number: int, shape: tuple[int, int]) -> Map:
    """A map that knows nothing, of the same smoothness as the one that it is compared with."""
    values: Map = np.random.default_rng(number).random(shape, np.float32)
    return values


def margin(of_maps: Sequence[float], of_random: Sequence[float]) -> tuple[float, float]:
    """Mean difference of pairs, and half the width of its 95 % interval (normal approximation)."""
    differences = np.subtract(of_maps, of_random)
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else 1.0  # nothing is known
    return float(differences.mean()), float(1.96 * error)


def _ranks(heat: Map) -> NDArray[np.float64]:
    """The place of each pixel in the map's order, in 0…1; of equal ones the upper left comes first."""
    order = np.argsort(-heat, axis=None, kind="stable")
    ranks = np.empty(heat.size)
    ranks[order] = np.arange(heat.size) / heat.size
    return ranks.reshape(heat.shape)


def _blurred(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width, channels = picture.shape
    rows, columns = (_starts(side) for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float32), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    means = (sums / sizes[..., None]).astype(np.float32)
    planes = [resized(means[..., channel], height, width) for channel in range(channels)]
    smooth: NDArray[np.uint8] = np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
    return smooth


def _starts(side: int) -> NDArray[np.int64]:
    """Where the places begin into which a side is cut."""
    count = min(BLURRED, side)
    starts: NDArray[np.int64] = np.arange(count) * side // count
    return starts


def _area(scores: NDArray[np.float32]) -> float:
    return float(np.trapezoid(scores, dx=1.0 / STEPS))
