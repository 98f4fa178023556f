"""A trained network on disk, with everything that is needed to use it: architecture, labels, preprocessing.

Holds only plain values and tensors, so that `torch.load(weights_only=True)` reads it: no code runs on loading.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from taxon.bundle.atomic_files import replacing
from taxon.bundle.manifest import PixelSpec
from taxon.training.errors import TrainingError
from taxon.training.network import model, torch_files
from taxon.training.network.weights import is_file, restore

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state of a training: of a picture classifier, or with `pixels` None of a classifier of numbers."""

    model: str
    """Name for `model.build`."""
    labels: tuple[str, ...]
    """In the order of the logits."""
    task: Literal["single_label", "multi_label"]
    pixels: PixelSpec | None
    mean: tuple[float, ...]
    """Per channel of `x / 255`, or per feature."""
    std: tuple[float, ...]
    state: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    """Of the validation split, at this state."""
    epoch: int
    """Epochs completed."""
    run_id: str
    head: str = "linear"
    features: tuple[str, ...] = ()
    """Of a classifier of numbers: what each is, in their order."""
    sample_count: int = 0
    """Samples that trained it; 0: an earlier release did not say."""
    privacy: Mapping[str, float] = field(default_factory=dict)
    """What it tells of a training sample at most, see `taxon.bundle.manifest.Privacy`; empty: that is not bounded."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What the training needs to go on: optimiser, averages, step. Empty in `best.pt`."""

    def save(self, path: Path) -> None:
        """Writes the file so that it is either wholly new or wholly old, even if the machine stops or the disk
        is full.

        Raises:
            OSError: Not writable; a previous file is untouched.
        """
        content = {part.name: getattr(self, part.name) for part in fields(self)}
        content |= {
            "format": FORMAT,
            "pixels": None if self.pixels is None else self.pixels.model_dump(),
            "state": dict(self.state),
            "metrics": dict(self.metrics),
            "privacy": dict(self.privacy),
            "progress": dict(self.progress),
        }
        with replacing(path) as file:
            torch.save(content, file)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file that `save` wrote; all tensors on the CPU.

        Raises:
            TrainingError: Missing, damaged, or not a checkpoint of ours.
        """
        content = torch_files.read(path, "checkpoint")
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise TrainingError(f"{path} is not a checkpoint of this release")
        try:
            if content["pixels"] is not None:
                content["pixels"] = PixelSpec.model_validate(content["pixels"])
            return cls(**content)
        except (KeyError, TypeError, ValidationError) as error:
            raise TrainingError(f"the checkpoint {path} is incomplete: {error}") from error

    def build_model(self) -> nn.Module:
        """The network with this state, in evaluation mode: normalised float32 in, logits out."""
        network = model.load(self.model, len(self.labels), channels=len(self.mean), head=self.head).network
        restore(network, self.state)
        return network.eval()


def run_behind(weights: str) -> tuple[str, ...]:
    """The id of the run whose checkpoint a weights file is; empty for all others.

    Raises:
        TrainingError: The file cannot be read.
    """
    if not is_file(weights):
        return ()
    content = torch_files.read(Path(weights), "weights file")
    is_ours = isinstance(content, dict) and content.get("format") == FORMAT
    return (str(content["run_id"]),) if is_ours and content.get("run_id") else ()
