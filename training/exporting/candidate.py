"""What can become a bundle: a trained classifier with its validation pictures and its past.

Knows nothing of graphs or of where the classifier came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from taxon.bundle.manifest import FeaturesInput, ImageInput, PixelSpec, Privacy
from taxon.training.config import Task
from taxon.training.errors import TrainingError
from taxon.training.exporting.examples import Example

MEASURED_AGAIN = 0.005
"""How far the accuracy may lie from what training measured: mixed precision on a GPU moves single pictures."""


class ExportError(TrainingError):
    """A classifier that must not be published."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained classifier with all that a bundle says of it."""

    network: nn.Module
    """float32 `[N, C, H, W]` or `[N, F]`, normalised → logits `[N, K]`; in evaluation mode."""
    labels: tuple[str, ...]
    pixels: PixelSpec | None
    """None for a classifier of numbers."""
    mean: tuple[float, ...]
    """Per channel of `x / 255`, or per feature."""
    std: tuple[float, ...]
    files: tuple[Example, ...]
    """Validation pictures, or rows."""
    answers: tuple[tuple[str, ...], ...]
    """Their true labels: one each, or for a multi-label task any number."""
    run_id: str
    data_digest: str
    task: Task = "single_label"
    expected_accuracy: float | None = None
    """On the same pictures, as training measured it."""
    seed: int | None = None
    git: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    training_files: tuple[Example, ...] = ()
    """Training pictures, for the ranges of int8 and the judge of familiarity."""
    training_answers: tuple[tuple[str, ...], ...] = ()
    """Their true labels."""
    head: str | None = None
    """Path of the layer that makes logits of features; None if the network has no such layer in one place."""
    parents: tuple[str, ...] = ()
    """What it was made from, if not from pictures alone: runs that were fused, or that taught it."""
    privacy: Privacy | None = None
    """Of the training; training files are then not looked at again."""
    features: tuple[str, ...] = ()
    """What each number is, in their order; empty for pictures."""
    notes: tuple[str, ...] = ()
    """What a person should know of the validation pictures."""

    @property
    def input(self) -> ImageInput | FeaturesInput:
        """What the graph takes."""
        if self.pixels is None:
            return FeaturesInput(shape=(len(self.mean),), names=self.features)
        return ImageInput(shape=self.pixels.shape)

    def with_pixels(self, **changes: bool | str) -> Self:
        """The same, but for some fields of `pixels`, whose options have the same names.

        Raises:
            ExportError: It takes no pictures.
        """
        if self.pixels is None and changes:
            option = next(iter(changes)).replace("_", "-")
            raise ExportError(f"--{option} is about pictures, and the classifier takes numbers")
        return replace(self, pixels=self.pixels and self.pixels.model_copy(update=changes))


def target_matrix(answers: Sequence[Sequence[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels are true of each picture: bool `[N, K]`.

    Raises:
        ExportError: There are no answers, or one is not among the labels.
    """
    if not answers:
        raise ExportError("there are no validation pictures: the gate needs some")
    if missing := sorted({label for answer in answers for label in answer} - set(labels)):
        raise ExportError(f"validation pictures are labelled {missing[:5]}, which the classifier does not know")
    targets = np.zeros((len(answers), len(labels)), dtype=np.bool_)
    for row, answer in zip(targets, answers, strict=True):
        row[[labels.index(label) for label in answer]] = True
    return targets


def check_measured_again(measured: float, expected: float | None, file_count: int) -> None:
    """Compares the network's accuracy with what training measured on the same files, or the user knows. A checkpoint
    whose labels, weights, mean or pixels were changed after training agrees with its own graph, but not with its past.

    Raises:
        ExportError: They differ by more than half a point, or by more than one picture if that is more.
    """
    if expected is not None and abs(measured - expected) > max(MEASURED_AGAIN, 1.0 / file_count) + 1e-9:
        raise ExportError(
            f"the accuracy on the validation pictures is known to be {expected:.2%}, but is {measured:.2%} here: the "
            "labels, weights or preprocessing are not those that were trained"
        )
