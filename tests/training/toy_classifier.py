"""A classifier of coloured noise, small enough to export in a test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.graph import write_graph

LABELS = ("blue", "green", "red")
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)
PIXELS = PixelSpec(resize=12, crop=(10, 10))


class ToyNetwork(nn.Module):
    """Convolution, batch normalisation, dropout, pooling, linear: one of everything that an export can break."""

    def __init__(self, class_count: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean.normal_(0, 0.1)
            self.norm.running_var.uniform_(0.5, 1.5)
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(8, class_count)
            self.fc.weight.data.mul_(4)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.norm(self.conv(pictures)).relu()
        return self.fc(self.dropout(maps.mean(dim=(2, 3))))


class AskedTwice(ToyNetwork):
    """Its head has no one vector for each picture."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures) + super().forward(-pictures)


def write_pictures(folder: Path, count: int, suffix: str = ".png", seed: int = 0) -> tuple[Path, ...]:
    """Noise of varying size around varying colours."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    files = []
    for number in range(count):
        colour = generator.integers(0, 256, 3)
        noise = generator.integers(-40, 41, (12 + number % 5, 14, 3))
        files.append(folder / f"{number:03d}{suffix}")
        Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(files[-1])
    return tuple(files)


def decoded(files: tuple[Path, ...]) -> np.ndarray:
    return np.stack([decode(file.read_bytes(), PIXELS) for file in files])


def make_candidate(folder: Path, *, count: int = 24, network: nn.Module | None = None, **changes: object) -> Candidate:
    """A candidate whose pictures' true labels are mostly what the network answers."""
    files = write_pictures(folder / "val", count)
    network = ToyNetwork() if network is None else network
    best = parity.reference_logits(ToyNetwork(), files, PIXELS, MEAN, STD).argmax(axis=1)
    best[::8] = (best[::8] + 1) % len(LABELS)
    parts: dict[str, object] = {
        "network": network,
        "labels": LABELS,
        "pixels": PIXELS,
        "mean": MEAN,
        "std": STD,
        "files": files,
        "answers": tuple((LABELS[index],) for index in best),
        "run_id": "run-1",
        "data_digest": "0" * 64,
        "expected_accuracy": 1.0 - len(best[::8]) / count,
    }
    return Candidate(**{**parts, **changes})  # type: ignore[arg-type]


def with_training(candidate: Candidate, folder: Path, count: int = 20, seed: int = 0) -> Candidate:
    """The same with training pictures, of which the network knows all."""
    files = write_pictures(folder / "train", count, seed=seed)
    best = parity.reference_logits(candidate.network, files, PIXELS, MEAN, STD).argmax(axis=1)
    answers = tuple((LABELS[index],) for index in best)
    return replace(candidate, training_files=files, training_answers=answers)


def corrupting(change: Callable[[Path], None]) -> Callable[..., None]:
    """An exporter that spoils its own result: a planted fault."""

    def write(served: nn.Module, shape: tuple[int, int, int], path: Path, strategy: object) -> None:
        write_graph(served, shape, path, strategy)
        change(path)

    return write
