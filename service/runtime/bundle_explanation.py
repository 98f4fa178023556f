"""Explanations of a bundle's answers in this process, without a server. Knows files and arrays; not workers."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import answers, pixels, store, thumbnails
from taxon.bundle.manifest import BundleError, Manifest
from taxon.bundle.picture_limits import Limits
from taxon.bundle.thumbnails import Neighbor
from taxon.explanation import activation, masking
from taxon.explanation.activation import Map
from taxon.service.runtime.bundle_proof import FULL, prove
from taxon.service.runtime.device import CPU, Device
from taxon.service.runtime.explained import unpacked

TOGETHER = 8
"""Masked copies that are run in one batch."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one picture and label."""

    label: str
    score: float
    method: str
    """`activation` or `masking`."""
    run_count: int
    """Pictures that were run."""
    heat: Map
    picture: NDArray[np.uint8]
    """As the graph took it."""
    neighbors: list[Neighbor]
    """As many as were asked for, the most alike first."""


class BundleExplainer:
    """A bundle that has been proven on this machine's CPU."""

    def __init__(self, folder: Path, precision: str = FULL) -> None:
        """Reads and proves it.

        Args:
            folder: Of one version: `<root>/<name>/<version>`.
            precision: Of the variant.

        Raises:
            BundleError: It is no bundle, is not answered as it should be, or takes no pictures.
            OSError: It cannot be read.
        """
        whole = folder.resolve()
        if not whole.name.isdecimal():
            raise BundleError(f"{folder} is no version of a model: give MODELS/NAME/VERSION")
        self._bundle = bundle = store.read(whole.parents[1], whole.parent.name, int(whole.name))
        self.manifest: Manifest = bundle.manifest
        if self.manifest.pixels is None:
            raise BundleError(f"model {self.manifest.name!r} takes features: only pictures are explained")
        if precision not in {variant.precision for variant in self.manifest.variants}:
            raise BundleError(f"{folder} has no variant {precision}")
        threads = len(os.sched_getaffinity(0))
        device = Device(provider=CPU, options={})
        self._proven = prove(bundle, precision, device, threads, (1, TOGETHER), Limits())
        self._spec = self.manifest.pixels

    def explain(self, encoded: bytes, label: str = "", method: str = "", max_neighbors: int = 0) -> Explanation:
        """Explains one label of one picture.

        Args:
            encoded: The picture.
            label: One of the model's; empty for the one with the highest score.
            method: `activation`, `masking`, or empty for what the bundle offers.
            max_neighbors: Training pictures to show beside.

        Raises:
            ValueError: There is no such label, no maps for that method, or no thumbnails.
            BundleError: The thumbnails have changed since the bundle was read.
            PictureError: See `taxon.bundle.picture_limits`.
        """
        labels = self.manifest.labels
        if label and label not in labels:
            raise ValueError(f"model {self.manifest.name!r} has no label {label!r}")
        if method == "activation" and self.manifest.maps is None:
            raise ValueError(f"model {self.manifest.name!r} was exported without maps: --method masking needs none")
        if max_neighbors and self.manifest.thumbnails is None:
            raise ValueError(f"model {self.manifest.name!r} was exported without thumbnails of training pictures")
        picture = pixels.decode(encoded, self._spec, Limits())
        first = unpacked(self._proven.explain(picture[None])[0])
        scores, _ = answers.parted(first.row, len(labels))
        index = labels.index(label) if label else int(scores.argmax())
        if first.maps is not None and method != "masking":
            used, run_count, heat = "activation", 1, activation.of_label(first.maps, index, self.manifest.task)
        else:
            evidence = self._masked(picture, index)
            used, run_count, heat = "masking", 1 + evidence.count, evidence.map()
        neighbors: list[Neighbor] = []
        if max_neighbors and first.features is not None:
            neighbors = thumbnails.nearest(self._bundle, first.features, max_neighbors)
        return Explanation(labels[index], float(scores[index]), used, run_count, heat, picture, neighbors)

    def scores(self, pictures: NDArray[np.uint8], label: str) -> NDArray[np.float32]:
        """One label's scores, float32 `[N]`, of uint8 `[N, height, width, channels]`."""
        index = self.manifest.labels.index(label)
        batches = (pictures[begin : begin + TOGETHER] for begin in range(0, len(pictures), TOGETHER))
        scores: NDArray[np.float32] = np.concatenate([self._proven.session.run(batch)[:, index] for batch in batches])
        return scores

    def _masked(self, picture: NDArray[np.uint8], index: int) -> masking.Evidence:
        height, width, _ = picture.shape
        evidence, waiting = masking.Evidence(height, width), masking.masks(height, width, masking.MASK_COUNT)
        while seen := list(itertools.islice(waiting, TOGETHER)):
            rows = self._proven.session.run(np.stack([masking.masked(picture, one) for one in seen]))
            for one, row in zip(seen, rows, strict=True):
                evidence.add(one, float(row[index]))
        return evidence
