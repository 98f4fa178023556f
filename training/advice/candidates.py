"""Words → backbones whose weights are on this machine. Downloads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from taxon.training.config import DataOptions
from taxon.training.dataset.data import Sample
from taxon.training.errors import TrainingError
from taxon.training.loop.prepare import choose_preprocessing
from taxon.training.network import model
from taxon.training.network.model import Preprocessing
from taxon.training.network.networks import NETWORKS
from taxon.training.network.published import TIMM, is_at_hand, names
from taxon.training.network.weights import SUFFIXES, is_file, restore
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from taxon.training.suggest import nearest

FLOOR = "mobilenet_v2=none"
"""What random weights reach: a candidate that is not clearly above it has learnt nothing that helps."""
NO_BACKBONES = ("mlp",)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network under a new head for the classes of the data."""

    name: str
    """As tables show it."""
    weights: str
    """Where they are from, in words."""
    kind: Literal["published", "file", "run", "random"]
    network: nn.Module
    head: str
    preprocessing: Preprocessing
    train_options: tuple[str, ...]
    """Of `taxon train`, for the same network, weights and pictures; the data is not among them."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A candidate that cannot be judged."""

    name: str
    reason: str


def default_words() -> list[str]:
    """Torchvision's and, where it is installed, timm's networks whose weights are in the caches of this machine, and
    the floor.
    """
    found = [name for name in names() if name not in NETWORKS and is_at_hand(name, "DEFAULT")]
    try:
        import timm
    except ImportError:
        pass
    else:
        found += [f"{TIMM}{name}" for name in timm.list_models(pretrained=True) if is_at_hand(TIMM + name, "DEFAULT")]
    return [*found, FLOOR]


def open_candidate(
    word: str, class_count: int, samples: Sequence[Sample], color: str, image_size: int | None = None
) -> Backbone:
    """Opens one candidate.

    Args:
        word: A model's name, `NAME=FILE`, `NAME=none` (random weights), a weights file that is called after its model,
            or the folder of a run or its checkpoint.
        class_count: Of the data.
        samples: Of the data, with digests; their size decides that of networks without one of their own.
        color: `rgb` or `grayscale`, for networks that are no runs.
        image_size: Side of the pictures in pixels, for networks that are no runs; None for that of the weights.

    Raises:
        TrainingError: No such model, its weights are not on this machine or do not fit, or it was trained on these
            samples.
    """
    path = Path(word)
    if (path / "run.json").is_file():
        _check_unseen(path, samples)
        return _of_run(word, path / "best.pt", class_count)
    if path.is_file() and "=" not in word:
        if path.suffix not in SUFFIXES:
            raise TrainingError(f"{word} is no weights file: it ends in none of {', '.join(SUFFIXES)}")
        if path.name in ("best.pt", "last.pt"):
            if (path.parent / "run.json").is_file():
                _check_unseen(path.parent, samples)
            return _of_run(word, path, class_count)
        word = f"{_named_after(path)}={word}"
    elif path.is_dir():
        raise TrainingError(f"{word} is not the folder of a run: it has no run.json")
    name, _, weights = word.partition("=")
    if name in NO_BACKBONES:
        raise TrainingError(f"{name} takes numbers, not pictures")
    if not name.startswith(TIMM) and name not in names():
        raise TrainingError(f"there is no model, run or weights file {word!r}{nearest(name, names())}")
    if name in NETWORKS and weights != "none" and not is_file(weights):
        raise TrainingError(f"{name} has no published weights: give a run, {name}=FILE, or {name}=none as a floor")
    random, source = weights == "none", weights or "DEFAULT"
    if not random and not is_at_hand(name, source):
        raise TrainingError(f"the weights {source} of {name} are not on this machine")
    torch.manual_seed(0)
    preprocessing = choose_preprocessing(
        name, None if random else source, list(samples), image_size=image_size, color=color
    )
    if preprocessing.pixels is not None:  # resized as `taxon train` does by default
        pixels = preprocessing.pixels.model_copy(update={"resampler": DataOptions().resampler})
        preprocessing = replace(preprocessing, pixels=pixels)
    channels = len(preprocessing.mean)
    loaded = model.load(name, class_count, channels=channels, weights=None if random else source)
    model.check_takes(loaded.network, preprocessing.example().permute(0, 3, 1, 2).float())
    kind: Literal["published", "file", "random"] = "random" if random else "file" if weights else "published"
    shown = {"random": "random: a floor", "file": Path(weights).name, "published": "published"}[kind]
    options = _train_options(name, source, preprocessing)
    return Backbone(name, shown, kind, loaded.network.eval(), loaded.head, preprocessing, options)


def _check_unseen(folder: Path, samples: Sequence[Sample]) -> None:
    """Refuses a run that knows the pictures: its features tell them apart better than any others.

    Raises:
        TrainingError: Says how many they are.
    """
    known = {sample.sha256 for sample in Run.open(folder).samples("train")}
    if seen := sum(sample.sha256 in known for sample in samples):
        raise TrainingError(f"it was trained on {seen} of these pictures: they cannot judge it")


def _of_run(word: str, path: Path, class_count: int) -> Backbone:
    checkpoint = Checkpoint.load(path)
    if checkpoint.pixels is None:
        raise TrainingError(f"the run {word} is of numbers, not pictures")
    network = checkpoint.build_model()
    channels = len(checkpoint.mean)
    own = model.load(checkpoint.model, class_count, channels=channels, head=checkpoint.head)
    head = own.head
    kept = {key: value for key, value in network.state_dict().items() if not key.startswith(f"{head}.")}
    restore(own.network, kept, strict=False)
    preprocessing = Preprocessing(checkpoint.pixels, checkpoint.mean, checkpoint.std)
    options = _train_options(checkpoint.model, str(path), preprocessing)
    return Backbone(checkpoint.model, f"run {word}", "run", own.network.eval(), head, preprocessing, options)


def _train_options(name: str, weights: str, preprocessing: Preprocessing) -> tuple[str, ...]:
    side = preprocessing.example().shape[1]
    color = () if len(preprocessing.mean) == 3 else ("--color", "grayscale")
    return ("--model", name, "--weights", weights, "--image-size", str(side), *color)


def _named_after(path: Path) -> str:
    """The model that a weights file is called after, as torchvision's are: `resnet18-f37072fd.pth`."""
    fitting = [name for name in names() if path.name.startswith(name) and not path.name[len(name)].isalnum()]
    if not fitting:
        raise TrainingError(f"the file name {path.name} says no model: give MODEL={path}")
    return max(fitting, key=len)
