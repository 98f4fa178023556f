"""One picture → how much each of its places speaks for one label. Knows no protobuf."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import answers, thumbnails
from taxon.bundle.manifest import GRAPH_OUTPUT, Manifest
from taxon.bundle.store import Bundle
from taxon.bundle.thumbnails import Neighbor
from taxon.explanation import activation, masking, overlay
from taxon.explanation.activation import Map
from taxon.service.errors import (
    DeadlineTooShortError,
    FieldInvalidError,
    NotFiniteError,
    QueueFullError,
    ServiceError,
    cut,
)
from taxon.service.explanation.lane import Lane
from taxon.service.models.model import Model
from taxon.service.runtime.explained import Explained, unpacked
from taxon.service.scheduling.picture_size import Encoded
from taxon.service.telemetry.metrics import Metrics

Method = Literal["activation", "masking"]
AT_ONCE = 4
"""Masked copies of one picture under way, where as many workers are idle."""
RESERVE_S = 0.3
"""Of a call's time, kept for what follows the runs."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one picture and label."""

    model: Model
    label: str
    class_index: int
    score: float
    method: Method
    heat: Map
    overlay_png: bytes
    """Empty unless it was asked for."""
    run_count: int
    neighbors: list[Neighbor]
    """As many as were asked for, the most alike first."""


class Explaining:
    """The explanations of one front."""

    def __init__(self, models: Path, lane: Lane, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        """Explains nothing yet.

        Args:
            models: The repository, whose bundles' thumbnails are read when they are asked for.
            lane: Of the front.
            metrics: Where explanations are counted.
            clock: Of deadlines.
        """
        self._models = models
        self._lane = lane
        self._metrics = metrics
        self._clock = clock

    async def explain(
        self,
        image: Encoded,
        model: Model,
        label: str,
        method: Method | None,
        deadline: float,
        *,
        draw: bool,
        max_neighbors: int = 0,
    ) -> Explanation:
        """Explains one label of one picture.

        Args:
            image: Encoded.
            model: Found.
            label: One of the model's; empty for the one with the highest score.
            method: None: as the model allows.
            deadline: Point of `time.monotonic()`.
            draw: Whether to make an overlay.
            max_neighbors: Training pictures to show beside.

        Raises:
            FieldInvalidError: The model takes no pictures, or has no such label, no maps for that method, no
                thumbnails.
            BundleError: The thumbnails are not what they were when the bundle was loaded, or cannot be read.
            ServiceError: As `Lane.turn` and `Lane.run`.
            PictureError: See `taxon.bundle.picture_limits`.
        """
        manifest = _checked(model, method, max_neighbors)
        index = _index(model, label)
        began = self._clock()
        async with self._lane.turn(deadline):
            first = unpacked((await self._lane.run(model, image, deadline, explained=True)).scores)
            scores, _ = answers.parted(first.row, len(manifest.labels))
            if not np.isfinite(scores).all() or not (first.maps is None or np.isfinite(first.maps).all()):
                raise NotFiniteError("the model's scores for this input are not numbers")
            index = int(scores.argmax()) if index is None else index
            run_count = 1
            if first.maps is not None and method != "masking":
                method, heat = "activation", activation.of_label(first.maps, index, manifest.task)
            else:
                method, evidence = "masking", await self._masked(model, first, index, deadline)
                heat, run_count = await asyncio.to_thread(evidence.map), 1 + evidence.count
        drawn = await asyncio.to_thread(_drawn, first.picture, heat) if draw else b""
        neighbors: list[Neighbor] = []
        if max_neighbors and first.features is not None:
            bundle = Bundle(self._models / model.name / str(model.version), manifest)
            neighbors = await asyncio.to_thread(thumbnails.nearest, bundle, first.features, max_neighbors)
        self._metrics.explanation_seconds.labels(method).observe(self._clock() - began)
        labels = model.description.labels[GRAPH_OUTPUT]
        score = float(scores[index])
        return Explanation(model, labels[index], index, score, method, heat, drawn, run_count, neighbors)

    async def _masked(self, model: Model, first: Explained, index: int, deadline: float) -> masking.Evidence:
        """What masked copies tell: as many as the time suffices for, and as come before the first that fails."""
        picture = first.picture
        height, width, _ = picture.shape
        evidence, waiting = masking.Evidence(height, width), masking.masks(height, width, masking.MASK_COUNT)
        refusals: list[ServiceError] = []

        def prepared() -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
            seen = next(waiting, None)
            return None if seen is None else (seen, masking.masked(picture, seen))

        async def told(seen: NDArray[np.float32], copied: NDArray[np.uint8]) -> bool:
            while True:
                count = evidence.count
                try:
                    scored = await self._lane.run(model, copied, deadline - RESERVE_S)
                except ServiceError as error:
                    if isinstance(error, QueueFullError) and evidence.count > count:
                        continue  # it was the other copies that kept the workers
                    refusals.append(error)
                    return False
                evidence.add(seen, float(scored.scores[index]))
                return True

        turn = asyncio.Lock()  # a generator is asked by one at a time

        async def ask() -> None:
            while not refusals and self._clock() < deadline - RESERVE_S:
                async with turn:
                    copy = await asyncio.to_thread(prepared)
                if copy is None or not await told(*copy):
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(ask())
        if evidence.count >= masking.FEWEST_MASKS:
            return evidence
        raise (
            refusals[0]
            if refusals
            else DeadlineTooShortError(
                deadline - self._clock(), masking.FEWEST_MASKS * RESERVE_S / max(1, evidence.count)
            )
        )


def _checked(model: Model, method: Method | None, max_neighbors: int) -> Manifest:
    manifest = model.manifest
    if manifest is None:
        raise TypeError("a classifier has a manifest")
    if manifest.pixels is None:
        raise FieldInvalidError("image", f"model {manifest.name!r} takes features: only pictures are explained")
    if method == "activation" and manifest.maps is None:
        raise FieldInvalidError(
            "method", f"model {manifest.name!r} was exported without maps: ask for EXPLANATION_METHOD_MASKING"
        )
    if max_neighbors and manifest.thumbnails is None:
        raise FieldInvalidError(
            "max_neighbors", f"model {manifest.name!r} was exported without thumbnails of training pictures: ask for 0"
        )
    return manifest


def _index(model: Model, label: str) -> int | None:
    labels = [*model.description.labels[GRAPH_OUTPUT]]
    if label and label not in labels:
        raise FieldInvalidError("label", f"model {model.name!r} has no label {cut(label)!r}")
    return labels.index(label) if label else None


def _drawn(picture: NDArray[np.uint8], heat: Map) -> bytes:
    return overlay.png(overlay.drawn(picture, heat))
