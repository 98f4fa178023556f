"""Parts of the data that a classifier may serve worse than the rest: by source, by any further column of a list of
pictures, by size and by brightness. Knows samples and pictures, not answers.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.distributions import brightness, side
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode, open_picture
from taxon.training.dataset.data import Sample
from taxon.training.dataset.pictures import LIMITS

LEAST = 10
"""Samples; smaller slices say nothing."""
PARTS = 3
"""Of equal counts, that sizes and brightnesses are cut into."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some samples that have something in common."""

    title: str
    numbers: NDArray[np.int64]
    """Which, ascending."""


def looks(samples: Sequence[Sample], pixels: PixelSpec | None) -> NDArray[np.float64]:
    """float64 `[N, 2]`: of each picture `side` and `brightness`, see `taxon.bundle.distributions`; `[N, 0]` of rows.

    Raises:
        OSError: A picture cannot be read.
        PictureError: The same.
    """
    if pixels is None:
        return np.empty((len(samples), 0))

    def look(sample: Sample) -> tuple[float, float]:
        encoded = sample.path.read_bytes()
        array = decode(encoded, pixels, LIMITS)
        with open_picture(BytesIO(encoded)) as picture:
            return side(picture.width * picture.height), float(brightness(array[None])[0])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.array(list(pool.map(look, samples))).reshape(-1, 2)


def slices(samples: Sequence[Sample], labels: Sequence[str], seen: NDArray[np.float64]) -> list[Slice]:
    """Every slice of at least `LEAST` samples. What has only one value divides nothing.

    Args:
        samples: Of one split.
        labels: The classes: a folder of that name is no source.
        seen: Their `looks`.
    """
    found = []
    for column, values in _columns(samples, labels).items():
        known = np.array(values)
        if len(set(values)) > 1:
            found += [(f"{column} {value}", known == value) for value in sorted(set(values)) if value]
    for name, measured, form in zip(("side", "brightness"), seen.T, (".0f", ".2f"), strict=False):
        edges = np.quantile(measured, np.linspace(0, 1, PARTS + 1))
        bins = np.clip(np.searchsorted(edges, measured, side="right") - 1, 0, PARTS - 1)
        if len(np.unique(bins)) > 1:
            titles = [f"{name} {edges[n]:{form}} to {edges[n + 1]:{form}}" for n in range(PARTS)]
            found += [(title, bins == n) for n, title in enumerate(titles)]
    return [Slice(title, np.flatnonzero(chosen)) for title, chosen in found if chosen.sum() >= LEAST]


def _columns(samples: Sequence[Sample], labels: Sequence[str]) -> dict[str, list[str]]:
    """The further columns of the list; and the source, which is the group or else the folder, if no column is called
    so.
    """
    names = dict.fromkeys(name for sample in samples for name, _ in sample.columns)
    columns = {name: [dict(sample.columns).get(name, "") for sample in samples] for name in names}
    folders = ["" if (folder := sample.path.parent.name) in labels else folder for sample in samples]
    sources = [sample.group or folder for sample, folder in zip(samples, folders, strict=True)]
    return {"source": sources} | columns
